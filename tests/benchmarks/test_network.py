"""A network of three variables whose probabilities can be checked by hand, and the real ones where they can be had."""

import gzip
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unveil.benchmarks.orders.problems import network as module
from unveil.benchmarks.orders.problems.bif import parse_bif
from unveil.benchmarks.orders.problems.network import Network, NetworkSource, load_network, read_network
from unveil.commands.training import cache_folder
from unveil.model.errors import UnveilError
from unveil.training.data.wheels import Wheel

RAIN = """network weather {
}
variable Wet {
  type discrete [ 2 ] { yes, no };
}
variable Rain {
  type discrete [ 2 ] { yes, no };
}
variable Sprinkler {
  type discrete [ 3 ] { off, low, high };
}
probability ( Rain ) {
  table 0.2, 0.8;
}
probability ( Sprinkler | Rain ) {
  (yes) 1.0, 0.0, 0.0;
  (no) 0.5, 0.3, 0.2;
}
probability ( Wet | Sprinkler, Rain ) {
  (off, no) 0.0, 1.0;
  (low, no) 0.6, 0.4;
  (high, no) 0.9, 0.1;
  (off, yes) 0.8, 0.2;
  (low, yes) 0.9, 0.1;
  (high, yes) 1.0, 0.0;
}
"""
CONFIG = NetworkSource(name="weather", rows=50, validation_rows=20, test_rows=30, seed=3)


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package that holds this one network; gives the cache it is asked to use."""

    def read(found: Wheel, member: str, *, cache: Path) -> bytes:
        assert (found.requirement, cache) == ("pgmpy==1.1.2", tmp_path)
        if member != "pgmpy/utils/example_models/weather.bif.gz":
            raise UnveilError(f"{found.requirement} holds no file {member}")
        return gzip.compress(RAIN.encode())

    monkeypatch.setattr(module, "read_member", read)
    return tmp_path


def weather() -> Network:
    return Network(parse_bif(RAIN, file="weather.bif"), file="weather.bif")


def every_row(network: Network) -> np.ndarray:
    return np.array(list(itertools.product(*(range(len(variable.levels)) for variable in network.variables))))


def test_parents_and_edges_are_positions() -> None:
    network = weather()
    assert network.names == ("Wet", "Rain", "Sprinkler")
    assert network.parents == ((2, 1), (), (1,))
    assert set(network.edges) == {(2, 0), (1, 0), (1, 2)}
    assert network.topological_order == (1, 2, 0)


def test_log_probabilities_are_those_worked_out_by_hand() -> None:
    rows = np.array([[0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 2]])  # Wet, Rain, Sprinkler
    expected = [math.log(0.8 * 0.3 * 0.6), math.log(0.2 * 1.0 * 0.2), -math.inf, -math.inf]
    assert weather().log_prob(rows) == pytest.approx(expected)


def test_the_probabilities_of_all_rows_sum_to_one() -> None:
    network = weather()
    assert np.exp(network.log_prob(every_row(network))).sum() == pytest.approx(1.0, abs=1e-12)


def test_sample_frequencies_are_the_exact_law_and_the_impossible_is_never_drawn() -> None:
    network = weather()
    num_rows = 40_000
    samples = network.sample(num_rows, np.random.default_rng(0))
    assert np.isfinite(network.log_prob(samples)).all()
    for row, log_p in zip(every_row(network), network.log_prob(every_row(network)), strict=True):
        p, share = math.exp(log_p), (samples == row).all(1).mean()
        assert share == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / num_rows)), row


@pytest.mark.usefixtures("wheel")
def test_the_seed_shuffles_the_columns_and_draws_the_rows(tmp_path: Path) -> None:
    orders = {read_network(replace(CONFIG, seed=seed), cache=tmp_path).names for seed in range(20)}
    assert len(orders) == 6
    one, same = (load_network(CONFIG, cache=tmp_path) for _ in range(2))
    other = load_network(replace(CONFIG, seed=4), cache=tmp_path)
    assert one.fingerprint == same.fingerprint != other.fingerprint


@pytest.mark.usefixtures("wheel")
def test_the_dataset_has_three_samples_in_the_network_s_own_columns_and_levels(tmp_path: Path) -> None:
    dataset = load_network(CONFIG, cache=tmp_path)
    network = read_network(CONFIG, cache=tmp_path)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [50, 20, 30]
    assert dataset.names == network.names
    assert dataset.tokenizer.vocabulary_sizes == tuple(len(variable.levels) for variable in network.variables)
    assert np.isfinite(network.log_prob(dataset.test)).all()
    assert dataset.summary["license"] == "MIT"
    assert set(dataset.summary["edges"]) == {"Rain -> Wet", "Sprinkler -> Wet", "Rain -> Sprinkler"}
    dataset.tokenizer.encode(dataset.tokenizer.example_prompt())


@pytest.mark.usefixtures("wheel")
def test_a_network_that_the_package_does_not_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnveilError, match=r"^pgmpy==1.1.2 holds no file pgmpy/utils/example_models/wether.bif.gz$"):
        load_network(NetworkSource(name="wether"), cache=tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("table 0.2, 0.8", "table 0.2, 0.7", "line 13: 0.2, 0.7 are not 2 probabilities that sum to 1"),
        ("table 0.2, 0.8", "table 0.2, 0.8, 0.0", "line 13: 0.2, 0.8, 0.0 are not 2 probabilities that sum to 1"),
        ("table 0.2, 0.8", "table 0.2, much", "line 13: could not convert string to float: 'much'"),
        ("table 0.2, 0.8", "(yes) 0.2, 0.8", 'line 13: a variable without parents takes "table"'),
        ("(low, no)", "(loud, no)", "line 21: (loud, no) are not levels of the 2 parents"),
        ("(low, no)", "(off, no)", "line 21: a combination of the parents' levels comes twice"),
        ("  (low, no) 0.6, 0.4;\n", "", "line 25: 1 of 6 combinations of the parents' levels have no numbers"),
        ("[ 3 ]", "[ 4 ]", "line 11: variable Sprinkler names 3 levels, 4 different ones are announced"),
        ("discrete [ 3 ]", "continuous [ 3 ]", 'line 10: variable Sprinkler: only "type discrete" is read'),
        ("( Rain )", "( Reign )", "line 12: Reign is not a variable declared above"),
        ("Sprinkler | Rain", "Sprinkler | Sprinkler", "line 15: Sprinkler has a parent twice, or itself"),
        ("probability ( Rain )", "odds ( Rain )", 'line 12: "odds" where network, variable or probability should be'),
        ("{ yes, no };\n}\nvariable Rain", "{ yes, no }\n}\nvariable Rain", 'line 5: "}" where ";" should be'),
        ("  (high, yes) 1.0, 0.0;\n}\n", "", " ends in the middle of a block"),
        ("probability ( Rain ) {\n  table 0.2, 0.8;\n}\n", "", ": variable Rain has no probabilities"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused_in_one_line(old: str, new: str, message: str) -> None:
    assert RAIN.count(old) == 1
    with pytest.raises(UnveilError) as caught:
        parse_bif(RAIN.replace(old, new), file="weather.bif")
    separator = "" if message[0] in " :" else " "
    assert str(caught.value) == f"weather.bif{separator}{message}"


def test_parents_that_go_round_in_a_circle_are_refused() -> None:
    circular = RAIN.replace("( Rain ) {\n  table 0.2, 0.8;", "( Rain | Wet ) {\n  (yes) 0.2, 0.8;\n  (no) 0.2, 0.8;")
    with pytest.raises(UnveilError, match=r"^weather.bif: the parents of some variables go round in a circle$"):
        Network(parse_bif(circular, file="weather.bif"), file="weather.bif")


@pytest.mark.parametrize(
    ("name", "num_variables", "num_edges"), [("cancer", 5, 4), ("earthquake", 5, 4), ("survey", 6, 6), ("asia", 8, 8)]
)
def test_the_real_networks_are_whole_laws(name: str, num_variables: int, num_edges: int) -> None:
    try:
        network = read_network(NetworkSource(name=name), cache=cache_folder())
    except UnveilError as error:
        pytest.skip(f"the networks cannot be had here: {error}")
    assert (len(network.names), len(network.edges)) == (num_variables, num_edges)
    assert np.exp(network.log_prob(every_row(network))).sum() == pytest.approx(1.0, abs=1e-9)


def test_asia_is_the_network_of_the_textbook() -> None:
    try:
        network = read_network(NetworkSource(name="asia"), cache=cache_folder())
    except UnveilError as error:
        pytest.skip(f"the networks cannot be had here: {error}")
    levels = {"asia": 1, "tub": 1, "smoke": 0, "lung": 1, "bronc": 0, "either": 1, "xray": 1, "dysp": 0}
    row = np.array([[levels[name] for name in network.names]])
    p = 0.99 * 0.99 * 0.5 * 0.9 * 0.6 * 1.0 * 0.95 * 0.8
    assert network.log_prob(row) == pytest.approx([math.log(p)])

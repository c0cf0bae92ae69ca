"""The quick variants of the benchmarks on real tables, which share their arms: what they print fits together."""

from importlib.util import find_spec
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.benchmarks.quick import call, run_one_seed
from tests.model.enumerable import World, random_world
from tests.training.small import small_dataset, write_csv
from unveil.benchmarks.domains.fidelity import BUNDLED, CONTROLS
from unveil.benchmarks.domains.problems.fidelity import cut
from unveil.benchmarks.domains.problems.mixture import drawn_orders, mixture_log_likelihood
from unveil.benchmarks.domains.problems.tables import (
    arm,
    arm_name,
    arm_recipe,
    as_architecture,
    config_of,
    load,
    table_data,
)
from unveil.benchmarks.domains.tables import (
    DECIDED,
    LEARNED,
    MIXTURE,
    RANDOM,
    RIVALS,
    UNIFORM_BOUND,
    UNIFORM_MIXTURE,
    arms_of,
)
from unveil.benchmarks.orders.capacity import SIZES, plot
from unveil.benchmarks.orders.problems.order_search import search_order
from unveil.commands.training import cache_folder
from unveil.model.denoiser import Denoiser, Prediction
from unveil.model.errors import UnveilError
from unveil.model.network.architecture import OrderSpec
from unveil.model.network.build import build_network
from unveil.model.network.transformer import Transformer
from unveil.model.oracle.exact import log_likelihood as exact_log_likelihood
from unveil.model.oracle.exact import order_table
from unveil.training.data.config import AdultData
from unveil.training.data.load import load_dataset
from unveil.training.evaluation.judging.rows import decoded, real_rows, sample
from unveil.training.evaluation.likelihood import as_rows, log_likelihood

FIDELITY = [] if find_spec("sdmetrics") else ["--no-fidelity"]
BUDGET = {"steps": 20, "batch_size": 64}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all benchmarks, so that arms are found again."""
    try:
        load_dataset(AdultData(), cache=cache_folder())
    except UnveilError as error:
        pytest.skip(f"the data cannot be had here: {error}")
    return tmp_path_factory.mktemp("tables")


def test_tables_compares_the_arms_on_the_same_rows_of_adult_and_of_a_file(work: Path, tmp_path: Path) -> None:
    own = write_csv(tmp_path / "own.csv")
    arguments = ("--table", f"{own}=1", "--drop", "c", "--categorical", "d", *FIDELITY)
    report = run_one_seed("tables", work, *arguments)
    assert [table["name"] for table in report["tables"]] == ["adult", "own"]
    assert run_one_seed("tables", work, *arguments, "--no-adult")["tables"] == report["tables"][1:]
    larger = run_one_seed("tables", work, *arguments, "--no-adult", "--larger", "--no-fidelity")["tables"][0]["seeds"]
    assert larger[0]["parameters"]["global"] > 3 * report["tables"][1]["seeds"][0]["parameters"]["global"]
    assert list(report["tables"][1]["ids"]) == ["a", "b", "d"]
    for table in report["tables"]:
        (seed,) = table["seeds"]
        assert set(RIVALS) == set(seed["nats"]) & set(RIVALS)
        assert set(RIVALS) < set(seed["minus"][LEARNED])
        assert len({tuple(sorted(order)) for order in seed["orders"].values()}) == 1
        for name, rivals in seed["minus"].items():
            for rival, difference in rivals.items():
                expected = seed["nats"][name]["mean"] - seed["nats"][rival]["mean"]
                assert difference["mean"] == pytest.approx(expected, abs=1e-6), rival
        each = [seed["nats"][f"fixed, {name} (exact)"]["mean"] for name in RANDOM]
        assert seed["nats"][DECIDED]["mean"] == pytest.approx(sum(each) / len(RANDOM))
        assert seed["mixture"] == MIXTURE
        assert seed["nats"][UNIFORM_MIXTURE]["mean"] < seed["nats"][UNIFORM_BOUND]["mean"] + 0.05
        assert not table["learned_beats_all"]  # one seed has no interval
        assert (table["fidelity"] is None) == bool(FIDELITY)
        for found in (table["fidelity"] or {}).values():
            assert 0 < found["shape"] <= 1
            assert 0 < found["trend"] <= 1
    assert run_one_seed("tables", work, *arguments) == report  # found again


@pytest.mark.skipif(bool(FIDELITY), reason="takes sdmetrics, of the extra `bench`")
def test_fidelity_compares_samples_with_real_rows_and_with_what_real_rows_have(work: Path) -> None:
    report = run_one_seed("fidelity", work)
    (model,) = report["models"]
    anew, binned, test = report["controls"]
    assert [row["control"] for row in (anew, binned, test)] == list(CONTROLS)
    assert model["model"] == "adult"
    assert model["parameters"] > 100_000
    assert binned["shape"] > max(anew["shape"], test["shape"], model["shape"]["mean"])
    assert 0 < model["trend"]["mean"] < binned["trend"] <= 1
    assert model["seeds"][0]["privacy"]["generated_rows"] == 300
    assert run_one_seed("fidelity", work) == report  # found again


def test_fidelity_says_in_a_line_what_it_cannot_measure() -> None:
    found = call("fidelity", "--quick", "--artifact", str(BUNDLED.parent / "text"))
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert ("--no-fidelity" if FIDELITY else "is not of the rows and bins") in line


def test_a_benchmark_of_no_table_says_so() -> None:
    found = call("tables", "--quick", "--no-fidelity", "--no-adult")
    assert (found.returncode, found.stderr) == (1, "error: --no-adult: no --table is given, so none is left\n")


def test_prompts_prices_the_same_arms(work: Path) -> None:
    report = run_one_seed("prompts", work)
    assert [point["share"] for point in report["curve"]] == [0.0, 0.1, 0.25, 0.5]
    (table,) = report["tables"]
    (seed,) = table["seeds"]
    nats, accuracy = seed["nats_a_hidden_column"], seed["accuracy"]
    price = nats["global"]["mean"] - nats["uniform"]["mean"]
    assert seed["lost"]["uniform orders, nats a hidden column"]["mean"] == pytest.approx(price, abs=1e-6)
    lost = 100 * (accuracy["uniform"] - accuracy["global"])
    assert seed["lost"]["accuracy lost, points"]["mean"] == pytest.approx(lost, abs=1e-6)


def test_capacity_gains_are_what_one_arm_has_over_the_other(work: Path, tmp_path: Path) -> None:
    report = run_one_seed("capacity", work)
    assert len(report["sizes"]) == len(SIZES) >= 4
    for result in report["results"]:
        assert abs(result["parameters"] / result["size"] - 1) < 0.15
        for name, gain in result["gain"].items():
            expected = result["uniform"]["mean"] - result["learned"][name]["mean"]
            assert gain["mean"] == pytest.approx(expected, abs=1e-6)
    plot(report, tmp_path / "gain.png")
    assert (tmp_path / "gain.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--table", "nowhere.csv"], "nowhere.csv"),
        (["--table", "{own}", "--drop", "z"], '--drop z: no --table has a column "z"'),
        (["--table", "{own}", "--categorical", "a", "--drop", "a"], 'column "a" is in data.drop and in data.columns'),
    ],
)
def test_a_mistake_in_a_table_is_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    own = write_csv(tmp_path / "own.csv")
    result = call("tables", "--no-fidelity", *(text.format(own=own) for text in arguments))
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_arm_is_named_by_all_that_it_is_and_by_the_rows_not_by_where_they_lie(tmp_path: Path) -> None:
    names = set()
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (data,) = table_data([write_csv(tmp_path / place / "own.csv")])
        names.add(arm_name(arm("global", data=data, seed=0, budget=BUDGET), load(data)))
    assert len(names) == 1
    changed = [
        arm("uniform", data=data, seed=0, budget=BUDGET),
        arm("global", data=data, seed=1, budget=BUDGET),
        arm("global", data=data, seed=0, share=0.5, budget=BUDGET),
        arm("global", data=data, seed=0, size=10_000, budget=BUDGET),
        arm("global", data=data, seed=0, query_layers=1, budget=BUDGET),
    ]
    assert len(names | {arm_name(spec, load(data)) for spec in changed}) == 6


def without_order(recipe: dict[str, Any]) -> dict[str, Any]:
    advanced = {name: table for name, table in recipe["advanced"].items() if name != "order"}
    return {name: part for name, part in recipe.items() if name != "order"} | {"advanced": advanced}


@pytest.mark.parametrize("query_layers", [0, 1])
def test_a_network_with_queries_has_as_many_layers_and_parameters(query_layers: int) -> None:
    spec = arm("global", data={}, seed=0, size=10_000, query_layers=query_layers, budget=BUDGET)
    architecture = as_architecture(spec, small_dataset())
    assert (architecture.layers, architecture.query_layers) == (2 - query_layers, query_layers)
    assert build_network(architecture, OrderSpec(kind="global")).num_parameters == pytest.approx(10_000, abs=300)


@pytest.mark.parametrize("query_layers", [0, 1])
def test_fixed_arms_differ_from_the_learned_one_by_their_order_alone(query_layers: int) -> None:
    task = {"data": {"kind": "table", "path": "small.csv"}, "seed": 3, "share": 0.25, "budget": BUDGET}
    task["query_layers"] = query_layers
    specs = arms_of(task, 4)
    recipes = {name: arm_recipe(spec, small_dataset()).model_dump(exclude={"name"}) for name, spec in specs.items()}
    for name in ("left to right", *RANDOM):
        order = recipes[name]["order"]
        assert order["method"] == "fixed"
        assert sorted(order["positions"]) == [0, 1, 2, 3]
        assert without_order(recipes[name]) == without_order(recipes["global"])
        schedule, learned = (recipes[each]["advanced"]["order"] for each in (name, "global"))
        assert schedule == {key: learned[key] for key in ("warmup", "anneal", "exploration", "spread", "reading")}
    asked = {name: recipes[name]["advanced"]["model"]["query_layers"] for name in recipes}
    assert asked == {name: 0 if name == "uniform" else query_layers for name in recipes}
    drawn = [specs[name]["fixed"] for name in RANDOM]
    again, other = (arms_of({**task, "seed": seed}, 4) for seed in (3, 4))
    assert drawn == [again[name]["fixed"] for name in RANDOM]
    assert drawn != [other[name]["fixed"] for name in RANDOM]


@pytest.mark.parametrize("log_w", [[0.0, 0.0, 0.0, 0.0], [2.0, -1.0, 0.0, -1.0]])
def test_a_mixture_of_orders_is_the_mean_of_the_probabilities_along_them(log_w: list[float]) -> None:
    world = random_world(L=4, V=2, seed=5, imperfection=0.7)
    orders = drawn_orders(torch.tensor(log_w), 6, seed=0)
    assert len({tuple(order) for order in orders}) > 1
    found = mixture_log_likelihood(denoiser_of(world), as_rows(world.x.numpy()), orders)
    ce = world.tables()  # [V**L, 2**L, L]
    along = torch.zeros(len(orders), len(world.x), dtype=torch.float64)
    for number, order in enumerate(orders):
        for k, position in enumerate(order):
            along[number] += ce[:, sum(1 << i for i in order[:k]), position]
    assert torch.allclose(found, (-along).exp().mean(0).log(), atol=1e-5)
    assert float(found.exp().sum()) == pytest.approx(1.0, abs=1e-5)  # a distribution over all rows
    assert float((found + along.mean(0)).min()) >= -1e-5  # never below the mean of the logs, the NELBO
    assert float((found + along.mean(0)).max()) > 0.01


def test_the_mixture_over_all_orders_is_the_likelihood_with_the_order_summed_out() -> None:
    world = random_world(L=3, V=2, seed=1, imperfection=0.7)
    every = [list(order) for order in permutations(range(3))]
    found = mixture_log_likelihood(denoiser_of(world), as_rows(world.x.numpy()), every)
    assert torch.allclose(found, exact_log_likelihood(-world.tables(), order_table(torch.zeros(3))), atol=1e-5)


def denoiser_of(world: World) -> Denoiser:
    """The world's table of logits as a denoiser."""
    V, L = world.logits.shape[-1], world.x.shape[1]

    def denoise(tokens: torch.Tensor, hidden: torch.Tensor, lengths: torch.Tensor) -> Prediction:
        digits = torch.where(hidden, 0, tokens + 1)
        return Prediction(world.logits[(digits * (V + 1) ** torch.arange(L)).sum(-1)], torch.zeros(tokens.shape))

    return denoise


def test_rows_that_are_cut_are_evenly_spaced() -> None:
    cells = {"a": np.arange(100), "b": np.arange(100).astype(object)}
    found = cut(cells, 4)
    assert found["a"].tolist() == found["b"].tolist() == [12, 37, 62, 87]
    assert cut(cells, 1000)["a"].tolist() == list(range(100))


def small_net() -> Transformer:
    torch.manual_seed(0)
    spec = arm("uniform", data={"kind": "table", "path": "small.csv"}, seed=0, size=10_000, budget=BUDGET)
    return Transformer(as_architecture(spec, small_dataset()), OrderSpec(kind="uniform")).eval()


@pytest.mark.parametrize("max_sets", [0, 10, 16])
def test_the_search_never_ends_above_its_starts(max_sets: int) -> None:
    """With 16 sets it sees all there are, and ends at the best order."""
    net, rows = small_net(), as_rows(small_dataset().validation)
    starts = [[0, 1, 2, 3], [2, 3, 1, 0]]
    order, cost = search_order(net, rows, starts=starts, max_sets=max_sets, seed=0)
    assert cost == pytest.approx(float(-log_likelihood(net, rows, order).mean()), abs=1e-5)
    assert cost <= min(float(-log_likelihood(net, rows, start).mean()) for start in starts) + 1e-5
    if max_sets == 16:
        every = [float(-log_likelihood(net, rows, list(other)).mean()) for other in permutations(range(4))]
        assert cost == pytest.approx(min(every), abs=1e-5)


def test_a_net_is_asked_about_a_set_once() -> None:
    asked = []
    net = small_net()

    def denoise(tokens: torch.Tensor, hidden: torch.Tensor, lengths: torch.Tensor) -> Prediction:
        asked.append(hidden[0].tolist())
        return Prediction(*net(tokens, hidden, lengths))

    search_order(denoise, as_rows(small_dataset().validation), starts=[[0, 2, 1, 3]], max_sets=16, seed=0)
    assert len({tuple(hidden) for hidden in asked}) == len(asked) == 2**4


def test_samples_follow_the_net_and_decode_to_values_of_the_table(tmp_path: Path) -> None:
    (data,) = table_data([write_csv(tmp_path / "own.csv")])
    dataset = load(data)
    sizes = dataset.tokenizer.vocabulary_sizes

    def always_last(tokens: torch.Tensor, hidden: torch.Tensor, lengths: torch.Tensor) -> Prediction:
        logits = torch.full((*tokens.shape, max(sizes)), -torch.inf)
        for position, size in enumerate(sizes):
            logits[:, position, size - 1] = 0.0
        return Prediction(logits, torch.zeros(tokens.shape))

    ids = sample(always_last, order=[2, 0, 3, 1], rows=5, seed=0)
    assert (ids == np.array(sizes) - 1).all()
    tokenizer: Any = dataset.tokenizer
    cells = decoded(ids, tokenizer, seed=0)
    assert cells["a"].tolist() == ["a3"] * 5
    real = real_rows(config_of(data), tokenizer, cache=tmp_path)
    assert len(real["train"]["a"]) == len(dataset.train)
    assert tokenizer.encode_rows(real["test"]).tokens.tolist() == dataset.test.tolist()

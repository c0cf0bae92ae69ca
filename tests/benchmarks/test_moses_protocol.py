"""MOSES's protocol: each metric on cases done by hand, and the wheel's own statistics where it has been fetched."""

import hashlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.quick import call, run
from tests.memory import run_apart
from unveil.benchmarks.domains.problems.chemnet import ChemNet, Distances, frechet, has_fcd, moments
from unveil.benchmarks.domains.problems.moses_protocol.measurements import (
    as_bits,
    fingerprints,
    fragments,
    measure,
    nearest,
    passes_filters,
    property_of,
    scaffold,
)
from unveil.benchmarks.domains.problems.moses_protocol.metrics import (
    METRICS,
    Measured,
    cosine,
    internal_diversity,
    jackknife,
    measured,
    metrics,
    pair_sums,
    unique_at,
    wasserstein,
    with_errors,
)
from unveil.benchmarks.domains.problems.moses_protocol.protocol import training_molecules
from unveil.benchmarks.domains.problems.moses_protocol.published import PUBLISHED
from unveil.benchmarks.domains.problems.moses_protocol.sampling import sample_chunk, sampling_tasks
from unveil.benchmarks.domains.problems.moses_protocol.statistics import (
    PROPERTIES,
    Statistics,
    TestSet,
    filter_smarts,
    read_statistics,
    statistics_of,
)
from unveil.commands.training import cache_folder
from unveil.model.errors import UnveilError
from unveil.training.data.molecules.molecules import WHEEL, moses_smiles
from unveil.training.data.rows import evenly_spaced
from unveil.training.evaluation.chemistry import read

pytest.importorskip("rdkit")

BUNDLED = Path("checkpoints/moses").resolve()
has_wheel = (cache_folder() / f"{WHEEL.name}-{WHEEL.version}.whl").is_file()
needs_wheel = pytest.mark.skipif(not has_wheel, reason=f"the {WHEEL.requirement} wheel has not been fetched")
needs_chemnet = pytest.mark.skipif(not has_fcd(), reason="fcd_torch is not installed")

MOLECULES = ["Cc1ccccc1", "CC(=O)Nc1ccc(O)cc1", "CCO", "O=C(Nc1ccccc1)c1ccccc1", "CCO"]
ALERTS = ("[#6]=&!@[#6]-[#6]#[#7]", "[H]C([H])([#6])[F,Cl,Br,I]")


def references() -> dict[TestSet, Statistics]:
    """Statistics of `MOLECULES`, twice."""
    found = [read(text) for text in MOLECULES]
    own = Statistics(
        chemnet=moments(np.random.default_rng(0).normal(size=(600, 512)).astype(np.float32)),
        fingerprints=fingerprints(found),
        fragments=Counter(part for molecule in found for part in fragments(molecule)),
        scaffolds=Counter(core for molecule in found if (core := scaffold(molecule)) is not None),
        properties={name: np.array([property_of(name, molecule) for molecule in found]) for name in PROPERTIES},
    )
    return {"test": own, "test_scaffolds": own}


def sample_of(smiles: list[str], *, known: frozenset[str] = frozenset()) -> Measured:
    bits = {name: as_bits(own.fingerprints) for name, own in references().items()}
    return measured([measure(smiles, references=bits, smarts=ALERTS, chemnet=None)], known)


def test_the_reference_judged_against_itself_is_perfect() -> None:
    found = metrics(sample_of(MOLECULES), references())
    perfect = {"SNN/Test", "SNN/TestSF", "Frag/Test", "Frag/TestSF", "Scaf/Test", "Scaf/TestSF", "valid", "Filters"}
    assert {name for name, value in found.items() if value == pytest.approx(1.0)} >= perfect
    assert [found[name] for name in PROPERTIES] == pytest.approx([0.0] * 4)
    assert found["unique@1000"] == 4 / 5  # ethanol twice
    assert found["Novelty"] == 1.0
    assert found["FCD/Test"] is None  # no net, no distance


def test_what_is_no_molecule_counts_for_validity_alone_and_duplicates_count() -> None:
    whole, noisy = sample_of(MOLECULES), sample_of(["C(", *MOLECULES, "", "c1ccc"])
    known = frozenset(["CCO"])
    found = metrics(noisy, references())
    assert found["valid"] == 5 / 8
    assert {**found, "valid": 1.0} == metrics(whole, references())
    assert metrics(sample_of(MOLECULES, known=known), references())["Novelty"] == 3 / 4


def test_the_form_in_which_a_molecule_is_written_changes_nothing() -> None:
    assert metrics(sample_of(["OCC", "c1(C)ccccc1"]), references()) == metrics(
        sample_of(["CCO", "Cc1ccccc1"]), references()
    )


def test_a_set_without_a_valid_molecule_has_no_value_but_its_validity() -> None:
    found = with_errors(sample_of(["C(", "c1ccc"]), references())
    assert list(found) == list(METRICS)
    assert found.pop("valid") == {"value": 0.0, "error": 0.0}
    assert set(found.values()) == {None}


def test_filters_are_rings_charges_elements_and_alerts() -> None:
    passing = {
        "Cc1ccccc1": True,
        "C1CCCCCC1": True,
        "C1CCCCCCC1": False,  # eight atoms
        "C[N+](C)(C)C": False,
        "CP": False,
        "C=CC#N": False,  # an alert
        "CCCl": False,  # an alert that names hydrogens
        "Clc1ccccc1": True,
    }
    assert {text: passes_filters(read(text), ALERTS) for text in passing} == passing


def test_scaffolds_have_two_rings_and_fragments_their_ends() -> None:
    assert scaffold(read("Cc1ccccc1")) is None
    assert scaffold(read("Cc1ccc(C(=O)Nc2ccccc2)cc1")) == "O=C(Nc1ccccc1)c1ccccc1"
    assert sorted(fragments(read("CCOc1ccccc1"))) == ["[16*]c1ccccc1", "[3*]O[3*]", "[4*]CC"]
    assert fragments(read("CCO")) == ["CCO"]


def test_similarities_and_diversity_are_those_of_the_formulas() -> None:
    prints = np.zeros((3, 1024), dtype=np.uint8)
    prints[0, :4], prints[1, 2:4], prints[2, 10:12] = 1, 1, 1  # similarities: 0-1 one half, 0-2 and 1-2 none
    assert nearest(prints[:2], *as_bits(prints[1:])).tolist() == [0.5, 1.0]
    assert nearest(prints[2:], *as_bits(prints[:2])).tolist() == [0.0]
    pairs = pair_sums(prints, np.array([0, 0, 7]))
    assert pairs[0, :, 7].tolist() == [0.0, 0.0, 1.0]
    assert internal_diversity(pairs, 3, power=1) == pytest.approx(1 - (1.5 + 1.5 + 1) / 9)
    root = (1.25 / 3) ** 0.5
    assert internal_diversity(pairs, 3, power=2) == pytest.approx(1 - (root + root + (1 / 3) ** 0.5) / 3)


def test_counts_and_distances_are_those_of_the_formulas() -> None:
    assert cosine({"a": 3, "b": 4}, {"a": 3, "b": 4}) == pytest.approx(1.0)
    assert cosine({"a": 3, "b": 4}, {"b": 2, "c": 1}) == pytest.approx(8 / (5 * 5**0.5))
    assert cosine({}, {"a": 1}) is None
    assert unique_at(["a", "b", "a", "a"], 3) == 2 / 3
    assert unique_at(["a", "b", "a", "a"], 10_000) == 1 / 2
    assert wasserstein(np.array([1.0, 2.0, 5.0]), np.array([3.0, 4.0, 7.0])) == pytest.approx(2.0)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=20)
    others = [float(np.delete(values, i).mean()) for i in range(20)]
    assert jackknife(others) == pytest.approx(values.std(ddof=1) / 20**0.5)
    found = with_errors(sample_of(["CCO", "C("] * 40), references())["valid"]
    assert found == {"value": 0.5, "error": pytest.approx(0.0)}  # two of the four in every group


def test_the_published_table_is_whole_and_names_the_metrics() -> None:
    assert len(PUBLISHED) == 9
    assert all(set(row) <= set(METRICS) for row in PUBLISHED.values())
    assert PUBLISHED["CharRNN"]["FCD/Test"] == 0.0732


def test_training_molecules_come_from_the_whole_file() -> None:
    chosen = [int(text) for text in training_molecules([str(i) for i in range(10_000)], count=400)]
    assert len(set(chosen)) == 400
    assert 4_500 < np.mean(chosen) < 5_500
    assert max(chosen) > 9_500


def test_statistics_that_are_not_the_expected_bytes_are_never_unpickled() -> None:
    file = io.BytesIO()
    np.savez_compressed(file, stats=np.array({"frag": Counter(a=2)}, dtype=object))
    content = file.getvalue()
    found = hashlib.sha256(content).hexdigest()
    assert read_statistics(content, sha256=found) == {"frag": {"a": 2}}
    with pytest.raises(UnveilError, match=f"MOSES's statistics have sha256 {found}, expected 00: not read"):
        read_statistics(content, sha256="00")


@pytest.mark.slow
def test_a_sample_is_the_same_in_any_chunk_and_no_two_samples_share_a_seed() -> None:
    (whole,) = sampling_tasks(BUNDLED, temperature=1.0, seed=0, num_samples=6)
    parts = sampling_tasks(BUNDLED, temperature=1.0, seed=0, num_samples=6, chunk=4)
    smiles = sample_chunk(whole)["smiles"]
    assert [text for part in parts for text in sample_chunk(part)["smiles"]] == smiles
    assert len(set(smiles)) == 6
    (other,) = sampling_tasks(BUNDLED, temperature=1.0, seed=1, num_samples=6)
    assert not set(sample_chunk(other)["smiles"]) & set(smiles)


@needs_wheel
def test_rdkit_gives_what_stands_in_the_wheels_statistics() -> None:
    run_apart(_compare_rdkit_with_the_wheel)  # statistics of 176,000 molecules take 800 MB


def _compare_rdkit_with_the_wheel() -> None:
    smiles, statistics = moses_smiles("test", cache=cache_folder()), statistics_of("test", cache_folder())
    rows = evenly_spaced(len(smiles), 100)
    found = [read(smiles[i]) for i in rows]
    for name in PROPERTIES:
        own = [property_of(name, molecule) for molecule in found]
        assert own == pytest.approx(statistics.properties[name][rows].tolist())
        assert np.mean(own) == pytest.approx(statistics.properties[name].mean(), abs=statistics.properties[name].std())
    assert (fingerprints(found) == statistics.fingerprints[rows]).all()
    assert all(core in statistics.scaffolds for molecule in found if (core := scaffold(molecule)) is not None)
    assert all(part in statistics.fragments for molecule in found for part in fragments(molecule))
    assert np.mean([passes_filters(molecule, filter_smarts(cache_folder())) for molecule in found]) == 1.0


@needs_wheel
@needs_chemnet
@pytest.mark.slow
def test_rows_spread_over_moses_test_file_are_near_its_statistics_and_its_head_is_not() -> None:
    run_apart(_compare_spread_rows_with_the_head)


def _compare_spread_rows_with_the_head() -> None:
    smiles, statistics = moses_smiles("test", cache=cache_folder()), statistics_of("test", cache_folder())
    net = ChemNet()
    head = frechet(moments(net.activations(smiles[:1_000])), statistics.chemnet)
    spread = [smiles[i] for i in evenly_spaced(len(smiles), 1_000)]
    assert frechet(moments(net.activations(spread)), statistics.chemnet) < head / 2


@needs_chemnet
def test_the_distance_of_molecules_to_themselves_is_nothing() -> None:
    net = ChemNet()
    distances = Distances(net, moments(net.activations(MOLECULES)), real=MOLECULES)
    assert distances.of(MOLECULES) == pytest.approx(0.0, abs=1e-4)
    assert distances.of_real(len(MOLECULES)) == pytest.approx(0.0, abs=1e-4)
    assert distances.of(["CCO"]) is None
    assert distances.of_real(len(MOLECULES) + 1) is None


def test_the_protocol_wants_an_artifact_and_none_of_the_other_flags() -> None:
    for arguments, line in (
        (("--protocol", "moses"), "--protocol goes with --artifact"),
        (("--protocol", "moses", "--artifact", str(BUNDLED), "--infills", "3"), "--infills is not valid with"),
        (("--protocol", "moses", "--artifact", str(BUNDLED), "--curve-samples", "25"), "must be at most --samples"),
    ):
        refused = call("molecules", "--quick", *arguments)
        assert refused.returncode == 2
        assert line in refused.stderr


@needs_wheel
@pytest.mark.slow
def test_the_quick_protocol_prints_every_metric_and_goes_on_from_what_is_kept(tmp_path: Path) -> None:
    arguments = ("--artifact", str(BUNDLED), "--protocol", "moses", "--temperatures", "0.6", "--work", str(tmp_path))
    report = run("molecules", *arguments)
    for columns in (*report["table"].values(), *report["curve"].values()):
        assert {*METRICS, "samples", "num_valid"} == set(columns)
    assert list(report["curve"]) == ["temperature 1", "temperature 0.6", "training molecules"]
    assert report["table"]["training molecules"]["Novelty"]["mean"] == 0.0
    assert report["table"]["temperature 1"]["SNN/Test"]["low"] is not None
    kept = set(tmp_path.rglob("*.json"))
    assert len(kept) == 4 + 7  # chunks of 8: samples, then what is measured of them and of the training molecules
    assert run("molecules", *arguments) == report
    assert set(tmp_path.rglob("*.json")) == kept

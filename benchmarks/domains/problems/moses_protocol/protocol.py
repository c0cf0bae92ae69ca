"""The whole protocol: samples, then what is measured of each, then the metrics of each set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from unveil.benchmarks.common.runs import Fields, interval, run_all
from unveil.benchmarks.domains.problems.chemnet import FCD_NEEDED
from unveil.benchmarks.domains.problems.moses_protocol.measurements import measure_chunk, measuring_task, rdkit_version
from unveil.benchmarks.domains.problems.moses_protocol.metrics import METRICS, NUM_GROUPS, measured, with_errors
from unveil.benchmarks.domains.problems.moses_protocol.published import PUBLISHED, SOURCE
from unveil.benchmarks.domains.problems.moses_protocol.sampling import sample_chunk, sampling_tasks
from unveil.benchmarks.domains.problems.moses_protocol.statistics import TEST_SETS, statistics_of
from unveil.model.artifact.manifest import read_manifest
from unveil.training.data.molecules.molecules import WHEEL, moses_smiles

AT_ONE, TRAINING = "temperature 1", "training molecules"
_TRAINING_SEED = 0


@dataclass(frozen=True)
class Protocol:
    """What is sampled, and where results are kept. `curve_samples` are of each temperature beside 1, and of 1 again."""

    artifact: Path
    seeds: int
    samples: int
    temperatures: Sequence[float]
    curve_samples: int
    chunk: int
    has_chemnet: bool
    cache: Path
    work: Path
    jobs: int


def run_protocol(given: Protocol) -> Fields:
    """The report, in plain values: intervals of every metric at temperature 1, along the curve, and of as many training
    molecules; and what is published. Raises ArtifactError, UnveilError."""
    manifest = read_manifest(given.artifact)
    known = moses_smiles("train", cache=given.cache)
    chunks = _measured(given, {**_sampled(given), TRAINING: [training_molecules(known, count=given.samples)]})
    references = {name: statistics_of(name, given.cache) for name in TEST_SETS}
    in_training = frozenset(known)

    def judged(label: str, num_samples: int) -> Fields:
        cut = -(-num_samples // given.chunk)
        sets = [measured(found[:cut], in_training) for found in chunks[label]]
        metrics = [with_errors(own, references) for own in sets]
        counts: Fields = {"samples": num_samples, "num_valid": [int(own.is_valid.sum()) for own in sets]}
        return counts | {name: _interval([own[name] for own in metrics]) for name in METRICS}

    return {
        "protocol": "moses",
        "artifact": given.artifact.name,
        "parameters": manifest.num_parameters,
        "sha256": manifest.weights_sha256,
        "references": f"{WHEEL.requirement}: test_stats.npz, test_scaffolds_stats.npz; wheel sha256 {WHEEL.sha256}",
        "rdkit": rdkit_version(),
        "samples": given.samples,
        "curve_samples": given.curve_samples if given.temperatures else None,
        "seeds": given.seeds,
        "interval": _interval_of(given.seeds),
        "table": {label: judged(label, given.samples) for label in (AT_ONE, TRAINING)},
        "curve": {label: judged(label, given.curve_samples) for label in chunks} if given.temperatures else {},
        "published": {"source": SOURCE, "models": PUBLISHED},
        "left_out": {} if given.has_chemnet else {"FCD": FCD_NEEDED},
    }


Sets = dict[str, list[list[str]]]  # label -> of each seed the SMILES


def _sampled(given: Protocol) -> Sets:
    """At temperature 1, then at each of the curve's."""
    sizes = {1.0: given.samples} | {t: given.curve_samples for t in given.temperatures if t != 1}
    tasks = [
        sampling_tasks(given.artifact, temperature=t, seed=seed, num_samples=size, chunk=given.chunk)
        for t, size in sizes.items()
        for seed in range(given.seeds)
    ]
    sets = _run(sample_chunk, tasks, given, "samples")
    smiles = [[text for chunk in chunks for text in chunk["smiles"]] for chunks in sets]
    labels = [AT_ONE if t == 1 else f"temperature {t:g}" for t in sizes]
    return {label: smiles[i * given.seeds : (i + 1) * given.seeds] for i, label in enumerate(labels)}


def training_molecules(known: Sequence[str], *, count: int) -> list[str]:
    """So many random training molecules, without repetition: the file is not shuffled."""
    return [known[i] for i in np.random.default_rng(_TRAINING_SEED).permutation(len(known))[:count]]


def _measured(given: Protocol, sets: Sets) -> dict[str, list[list[Fields]]]:
    """The measured chunks of each set."""
    tasks = [
        [
            measuring_task(smiles[at : at + given.chunk], cache_folder=given.cache, has_chemnet=given.has_chemnet)
            for at in range(0, len(smiles), given.chunk)
        ]
        for of_seeds in sets.values()
        for smiles in of_seeds
    ]
    found = iter(_run(measure_chunk, tasks, given, "measured"))
    return {label: [next(found) for _ in of_seeds] for label, of_seeds in sets.items()}


def _run(
    work: Callable[[Fields], Fields], tasks: Sequence[Sequence[Fields]], given: Protocol, folder: str
) -> list[list[Fields]]:
    """The results of tasks in groups, all run together."""
    found = iter(run_all(work, list(chain.from_iterable(tasks)), folder=given.work / folder, jobs=given.jobs))
    return [[next(found) for _ in group] for group in tasks]


def _interval(found: Sequence[Any]) -> Fields | None:
    """95 %, Student's: over seeds where there are several, else with the jackknife's error."""
    from scipy import stats  # as in `runs`

    if any(own is None for own in found):
        return None
    values = [own["value"] for own in found]
    errors = [own["error"] for own in found]
    report = interval(values) | {"errors": errors}
    if len(found) == 1 and errors[0] is not None:
        half = float(stats.t.ppf(0.975, NUM_GROUPS - 1)) * errors[0]
        report |= {"low": values[0] - half, "high": values[0] + half}
    return report


def _interval_of(seeds: int) -> str:
    """What the intervals are over, in words."""
    jackknife = f"a jackknife that leaves out one of {NUM_GROUPS} groups of samples"
    if seeds > 1:
        return f"95 %, Student's t, over {seeds} seeds of sampling one trained model; of training molecules {jackknife}"
    return f"95 % of one draw of samples from one trained model: {jackknife}"

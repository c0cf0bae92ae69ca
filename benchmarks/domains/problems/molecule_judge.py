"""Molecules made in several ways from one data set, and what a judge says of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unveil.benchmarks.common.runs import Fields
from unveil.benchmarks.domains.problems.chemnet import ChemNet, Distances, moments
from unveil.benchmarks.domains.problems.molecules import scaffold_prompts
from unveil.benchmarks.domains.problems.moses_protocol.statistics import statistics_of
from unveil.commands.training import cache_folder
from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.along.serving import along
from unveil.model.decoding.canvas import SamplingParams
from unveil.model.network.base import Network
from unveil.model.network.build import prepare
from unveil.model.network.fixed_shapes import FixedShapes, fixed_shapes
from unveil.model.network.late import LateQueries
from unveil.model.tokenizers.smiles import SmilesTokenizer
from unveil.training.data.config import DataConfig, MosesData
from unveil.training.data.dataset import Dataset
from unveil.training.data.rows import evenly_spaced
from unveil.training.evaluation.chemistry import canonical, contains, judge, unique_share
from unveil.training.evaluation.molecules import make

Ids = NDArray[Any]  # [N, L]
SEED, UNIQUE_OF = 5_417, 10_000
MAX_BATCH = 64


def judged(
    ways: Mapping[str, tuple[Network, SamplingParams]], dataset: Dataset, data: DataConfig, task: Fields
) -> Fields:
    """Molecules and infills made in each way, by the same seeds, and what they are worth."""
    known, test = _molecules(dataset)
    asked = scaffold_prompts(test, count=task["infills"], seed=SEED)
    distances = _distances(dataset, data, limit=task["samples"]) if task["fcd"] else None
    end_id = _tokenizer(dataset).end_id
    nets = {id(net): _as_served(net, end_id) for net, _ in ways.values()}
    report = {}
    for label, (net, params) in ways.items():
        made = sample(nets[id(net)], dataset, [""] * task["samples"], params, task)
        filled = sample(nets[id(net)], dataset, [prompt for prompt, _ in asked], params, task)
        cores = [core for _, core in asked]
        report[label] = {**scores(made, known, distances), "infilled": share_filled(filled, cores)}
    return {"seed": task["seed"], "ways": report, "samples": task["samples"], "infills": len(asked)}


def _as_served(net: Network, end_id: int) -> FixedShapes | AlongDenoiser:
    """The same molecules as of the network itself, and faster."""
    if isinstance(net, LateQueries):
        return along(net, end_id=end_id, max_rows=MAX_BATCH)
    return fixed_shapes(prepare(net), net.architecture, MAX_BATCH, torch.device("cpu"))[0]


def _distances(dataset: Dataset, data: DataConfig, *, limit: int) -> Distances:
    """To MOSES's whole test file, by its own statistics; to at most `limit` test rows of a file of one's own."""
    tokenizer, chemnet = _tokenizer(dataset), ChemNet()
    rows, others = real_rows(dataset, limit=limit)
    if isinstance(data, MosesData):
        reference = statistics_of(data.test, cache_folder()).chemnet
    else:
        reference = moments(chemnet.activations(valid_forms(tokenizer.texts(rows))))
    return Distances(chemnet, reference, real=valid_forms(tokenizer.texts(others)))


def real_rows(dataset: Dataset, *, limit: int) -> tuple[Ids, Ids]:
    """At most so many test rows, spread evenly over the split, and as many validation rows, in random order."""
    others = np.random.default_rng(SEED).permutation(len(dataset.validation))[:limit]
    return dataset.test[evenly_spaced(len(dataset.test), limit)], dataset.validation[others]


def sample(
    net: FixedShapes | AlongDenoiser, dataset: Dataset, prompts: list[str], params: SamplingParams, task: Fields
) -> list[str]:
    return make(net, _tokenizer(dataset), prompts, params=params, seed=SEED + task["seed"])


def scores(made: Sequence[str], known: Sequence[str], distances: Distances | None) -> dict[str, float | None]:
    """MOSES's four, and the FCD of as many real molecules as are valid; None where there is nothing to judge."""
    found, valid = judge(made, train=known), valid_forms(made)
    return {
        "valid": found["valid"]["mean"],
        "unique": unique_share(made, first=UNIQUE_OF),
        "novel": found["novel"],
        "fcd": None if distances is None else distances.of(valid),
        "fcd_real": None if distances is None else distances.of_real(len(valid)),
    }


def share_filled(filled: Sequence[str], cores: Sequence[str]) -> float | None:
    """Of the infills, those that are molecules with their scaffold in them."""
    found = [contains(text, core) for text, core in zip(filled, cores, strict=True)]
    return sum(found) / len(found) if found else None


def _molecules(dataset: Dataset) -> tuple[list[str], list[str]]:
    """SMILES of the training and validation rows, and of the test rows."""
    tokenizer = _tokenizer(dataset)
    known = [text for split in (dataset.train, dataset.validation) for text in tokenizer.texts(split)]
    return known, tokenizer.texts(dataset.test)


def _tokenizer(dataset: Dataset) -> SmilesTokenizer:
    assert isinstance(dataset.tokenizer, SmilesTokenizer)
    return dataset.tokenizer


def valid_forms(smiles: Sequence[str]) -> list[str]:
    """The canonical forms of what is valid, in order."""
    return [form for form in map(canonical, smiles) if form is not None]

"""Molecules of one trained model in chunks, each kept as soon as it is made."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import count, islice
from pathlib import Path

from unveil.api import Model, load
from unveil.benchmarks.common.runs import Fields
from unveil.model.artifact.manifest import read_manifest
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.decoding.seeds import derive_seed
from unveil.model.tokenizers.smiles import SmilesTokenizer

SEED = 5_417
CHUNK = 1_000


def sampling_tasks(
    folder: Path, *, temperature: float, seed: int, num_samples: int, chunk: int = CHUNK
) -> list[Fields]:
    """Tasks of at most `chunk` molecules for `sample_chunk`. A longer run begins with the tasks of a shorter one, where
    that ends with a whole chunk. Raises ArtifactError."""
    weights = read_manifest(folder).weights_sha256
    return [
        {
            "problem": "moses-sampling",
            "arm": f"t{temperature:g}-{start}",
            "seed": seed,
            "artifact": str(folder),
            "weights": weights,
            "temperature": temperature,
            "start": start,
            "count": min(chunk, num_samples - start),
        }
        for start in range(0, num_samples, chunk)
    ]


def sample_chunk(task: Fields) -> Fields:
    """`smiles` of the samples start..start+count-1, whole molecules along the model's own order, one position a step.

    Sample i has a seed of its own, derived from the task's seed and i, whatever the chunks are.
    """
    model = _loaded(Path(task["artifact"]))
    tokenizer = model.tokenizer
    assert isinstance(tokenizer, SmilesTokenizer)
    template, params = tokenizer.encode(""), SamplingParams(temperature=task["temperature"])
    canvases = (
        Canvas.start(template.tokens, template.hidden, seed=seed, params=params)
        for seed in islice(sample_seeds(task["seed"]), task["start"], task["start"] + task["count"])
    )
    return {"smiles": [_text(canvas.tokens, tokenizer) for canvas, _ in model.decode(canvases)]}


def sample_seeds(seed: int) -> Iterator[int]:
    """The seeds of samples 0, 1, 2, ..."""
    return (derive_seed(SEED + seed, 0, index) for index in count())


@cache
def _loaded(folder: Path) -> Model:
    return load(folder)


def _text(tokens: Sequence[int], tokenizer: SmilesTokenizer) -> str:
    return "".join(str(tokenizer.value(position, token, 0.5)) for position, token in enumerate(tokens))

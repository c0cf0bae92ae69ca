"""Molecules that a trained model makes, and what the judge says of them: a part of the figures. Knows no chemistry."""

from typing import Any

from model.canvas import Canvas, SamplingParams
from model.denoiser import Denoiser, Stages, device_of
from model.sampler import decode
from model.seeds import derive_seed
from model.tokenizers.smiles import SmilesTokenizer
from training.chemistry import NEEDED, has_rdkit, judge
from training.data.dataset import Dataset
from training.evaluate import Advance

SEED = 181_112
MOST_SAMPLES = 1_000
_BATCH = 100


def num_samples(dataset: Dataset, limit: int | None) -> int:
    """How many molecules `molecule_figures` will make; none without a judge."""
    if dataset.tokenizer.domain != "smiles" or not has_rdkit():
        return 0
    return min(MOST_SAMPLES, limit or MOST_SAMPLES)


def molecule_figures(
    denoise: Denoiser, dataset: Dataset, *, limit: int | None, advance: Advance | None = None
) -> dict[str, Any]:
    """Validity, uniqueness and novelty of molecules along the learned law, or why they are left out."""
    count = num_samples(dataset, limit)
    if not count:
        return {"left_out": NEEDED}
    tokenizer = dataset.tokenizer
    assert isinstance(tokenizer, SmilesTokenizer)
    made = make(denoise, tokenizer, [""] * count, params=SamplingParams(), seed=SEED, advance=advance)
    train = [text for split in (dataset.train, dataset.validation) for text in tokenizer.texts(split)]
    return {"seed": SEED, **judge(made, train=train)}


def make(
    denoise: Denoiser | Stages,
    tokenizer: SmilesTokenizer,
    prompts: list[str],
    *,
    params: SamplingParams,
    seed: int,
    advance: Advance | None = None,
) -> list[str]:
    """One SMILES for each prompt, as the service would make it; `advance` is told of each row-forward."""
    made: list[str] = []
    for start in range(0, len(prompts), _BATCH):
        templates = [tokenizer.encode(prompt) for prompt in prompts[start : start + _BATCH]]
        canvases = [
            Canvas.start(t.tokens, t.hidden, seed=derive_seed(seed, 0, i), params=params)
            for i, t in enumerate(templates, start)
        ]
        rows = [canvas.tokens for canvas in canvases]
        for index, canvas, _ in decode(denoise, canvases, device=device_of(denoise)):
            rows[index] = canvas.tokens
            if advance is not None:
                advance(1)
        made += ["".join(str(tokenizer.value(p, i, 0.5)) for p, i in enumerate(row)) for row in rows]
    return made

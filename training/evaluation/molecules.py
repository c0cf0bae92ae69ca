"""Molecules that a trained model makes, and what the judge says of them: a part of the figures."""

from typing import Any

from unveil.model.along.serving import decode
from unveil.model.decoding.batch import AnyDenoiser
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.decoding.seeds import derive_seed
from unveil.model.denoiser import Denoiser
from unveil.model.tokenizers.smiles import SmilesTokenizer
from unveil.training.data.dataset import Dataset
from unveil.training.evaluation.chemistry import NEEDED, has_rdkit, judge
from unveil.training.evaluation.likelihood import Advance

SEED = 181_112
MOST_SAMPLES = 1_000
_BATCH = 100


def num_samples(dataset: Dataset, limit: int | None) -> int:
    """How many molecules `molecule_figures` will make; none without a judge."""
    if dataset.tokenizer.domain != "smiles" or not has_rdkit():
        return 0
    return min(MOST_SAMPLES, limit or MOST_SAMPLES)


def molecule_metrics(
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
    denoise: AnyDenoiser,
    tokenizer: SmilesTokenizer,
    prompts: list[str],
    *,
    params: SamplingParams,
    seed: int,
    advance: Advance | None = None,
) -> list[str]:
    """One SMILES for each prompt, as the service would make it; `advance` is told of the positions revealed."""
    canvases = (
        Canvas.start(t.tokens, t.hidden, seed=derive_seed(seed, 0, i), params=params)
        for i, t in enumerate(map(tokenizer.encode, prompts))
    )
    decoded = decode(denoise, canvases, end_id=tokenizer.end_id, max_batch=_BATCH, on_step=advance)
    rows = (canvas.tokens for canvas, _ in decoded)
    return ["".join(str(tokenizer.value(p, i, 0.5)) for p, i in enumerate(row)) for row in rows]

"""Whether a denoiser's conditionals agree with each other: how far its probabilities depend on the order. No file.

If all conditionals came from one joint law, `log p(x_C)` would be the same along every order of C, and what is scored
would be what is generated. A trained denoiser comes near it. Two figures say how near: the spread of `log p(x_C)` over
random orders of C, the rest hidden; and for tables the marginals as scored (nothing known, this column first) beside
the frequencies among rows generated along the learned order, which reveals other columns first.
"""

from typing import Any

import torch
from torch import Tensor

from unveil.model.denoiser import Denoiser, device_of
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.training.data.dataset import Dataset
from unveil.training.data.rows import Rows
from unveil.training.evaluation.estimate import Estimate
from unveil.training.evaluation.likelihood import Advance, marginal_nats

NUM_ORDERS = 8
MOST_ROWS = 64
GENERATED_ROWS = 4_000
_DRAWS = 200  # of the noise floor

Metrics = dict[str, Any]


def num_consistency_forwards(rows: Rows) -> int:
    """What `order_spread` tells `advance` in all."""
    return NUM_ORDERS * min(MOST_ROWS, len(rows)) * rows.x.shape[1]


def scored_sets(rows: Rows, *, seed: int) -> Tensor:
    """A random set C a row, [N, L] bool: |C| ~ U{2..n} of the n positions that can be hidden, C uniform given |C|."""
    generator = torch.Generator().manual_seed(seed)
    n = (~rows.given).sum(-1)
    least = n.clamp(max=2)
    drawn = torch.rand(len(rows), generator=generator, dtype=torch.float64).to(n.device)
    sizes = least + (drawn * (n - least + 1)).long().clamp(max=n - least)
    scores = torch.rand(rows.x.shape, generator=generator).to(n.device).masked_fill(rows.given, 2.0)
    return scores.argsort(-1).argsort(-1) < sizes[:, None]


def order_spread(denoise: Denoiser, rows: Rows, *, seed: int, advance: Advance | None = None) -> Metrics:
    """Standard deviation of `log p(x_C)` over NUM_ORDERS random orders of C, in nats; its mean over rows, as JSON.

    0 for a denoiser whose conditionals agree. `nats` is the mean of `-log p(x_C)`, to compare it with.
    """
    some = rows.subset(MOST_ROWS)
    scored = scored_sets(some, seed=seed)
    costs = torch.stack(
        [marginal_nats(denoise, some, scored, seed=seed + k, advance=advance) for k in range(NUM_ORDERS)]
    )  # [K, N]
    spread = Estimate.of(costs.std(0))
    return {
        "rows": len(some),
        "orders": NUM_ORDERS,
        "positions": float(scored.sum(-1).double().mean()),
        "nats": float(costs.mean()),
        "spread": {"mean": spread.mean, "standard_error": spread.standard_error},
    }


@torch.inference_mode()
def marginal_gaps(denoise: Denoiser, generated: Tensor, dataset: Dataset, *, seed: int) -> Metrics:
    """Each column's marginal as scored with nothing known beside its frequencies in rows `generated` [N, L], as JSON.

    `total_variation` is the mean over columns of `0.5 sum_v |p_v - f_v|`; `expected` the same of N rows drawn from the
    scored marginals themselves, which is chance alone. `largest` is the value with the largest gap.
    """
    tokenizer = dataset.tokenizer
    assert isinstance(tokenizer, TableTokenizer)
    N, L = generated.shape
    blank = torch.zeros(1, L, dtype=torch.int64, device=device_of(denoise))
    hidden = torch.ones_like(blank, dtype=torch.bool)
    logits = denoise(blank, hidden, hidden.sum(1)).token_logits[0].double().cpu()
    generator = torch.Generator().manual_seed(seed)
    found, expected, largest = 0.0, 0.0, (-1.0, 0, 0, 0.0, 0.0, 0.0)
    for column, size in enumerate(tokenizer.vocabulary_sizes):
        p = logits[column, :size].softmax(-1)
        f = torch.bincount(generated[:, column], minlength=size).double() / N
        found += float((p - f).abs().sum() / 2) / L
        drawn = torch.multinomial(p, N * _DRAWS, replacement=True, generator=generator).view(_DRAWS, N)
        counts = torch.zeros(_DRAWS, size, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
        expected += float((counts / N - p).abs().sum(-1).mean() / 2) / L
        worst = int((p - f).abs().argmax())
        p_of, f_of = float(p[worst]), float(f[worst])
        largest = max(largest, (abs(p_of - f_of), column, worst, p_of, f_of, (p_of * (1 - p_of) / N) ** 0.5))
    _, column, token_id, p_of, f_of, error_of = largest
    return {
        "rows": N,
        "total_variation": found,
        "expected": expected,
        "largest": {
            "column": tokenizer.name(column),
            "value": tokenizer.token(column, token_id),
            "scored": p_of,
            "generated": f_of,
            "standard_error": error_of,
        },
    }

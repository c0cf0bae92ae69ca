"""What a trained denoiser says of every subset of short rows, for `model.oracle.exact`.

Rows that agree where they are visible are one canvas: each canvas is asked once, so rows of few levels cost little.
"""

import torch
from torch import Tensor

from unveil.model.network.base import Network
from unveil.model.oracle.exact import subset_table


def token_table(denoiser: Network, x: Tensor) -> Tensor:
    """`CE(i | S)` of clean ids x [N, L], every column with a vocabulary of its own -> [N, 2**L, L] float64, in nats."""
    sizes = torch.tensor(denoiser.architecture.vocabulary_sizes)
    assert len(sizes) == x.shape[1]
    assert not denoiser.reads_ranks, "what it says is no function of sets"

    @torch.inference_mode()
    def cross_entropy(rows: Tensor, hidden: Tensor) -> Tensor:
        canvases, places = _distinct(rows, hidden, sizes)
        is_hidden = canvases == sizes
        lengths = torch.full((len(canvases),), len(sizes))
        logits = denoiser(canvases.masked_fill(is_hidden, 0), is_hidden, lengths).token_logits
        loss = -logits.float().log_softmax(-1)  # [distinct, L, V]
        found: Tensor = loss[places[:, None], torch.arange(len(sizes)), rows]
        return found

    return subset_table(cross_entropy, x)


def _distinct(rows: Tensor, hidden: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Canvases that differ, with a column's size where it is hidden: [D, L]; and which of them each row is: [N]."""
    places_of = (sizes + 1).cumprod(0)
    assert float((sizes + 1).double().log2().sum()) < 63, "too many different canvases to number"
    radix = torch.cat([torch.ones_like(sizes[:1]), places_of[:-1]])
    keys = (torch.where(hidden, sizes, rows) * radix).sum(-1)
    numbers, places = torch.unique(keys, return_inverse=True)
    return numbers[:, None] // radix % (sizes + 1), places

"""What the sampler and the objective take a denoiser to be: a callable. Knows no network."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Prediction(NamedTuple):
    """What one trunk pass says of every position of every canvas.

    `token_logits` [B, L, V], unnormalised, minus infinity at ids that a position does not have; `order_logits` [B, L],
    log-weights of the next position to reveal, meaningful up to a constant and at hidden positions only.
    """

    token_logits: Tensor
    order_logits: Tensor


class Denoiser(Protocol):
    """`tokens` [B, L] int64, `hidden` [B, L] bool, `lengths` [B] int64; positions from `lengths[b]` on are padding."""

    def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction: ...


class Barring:
    """A denoiser that never offers `barred`: one id at each of some positions, as a table's missing values.

    The other ids of the position share its mass in their proportions; each must have one at least.
    """

    def __init__(self, denoise: Denoiser, barred: Mapping[int, int]) -> None:
        self._denoise = denoise
        self._positions = torch.tensor(list(barred), dtype=torch.int64)
        self._ids = torch.tensor(list(barred.values()), dtype=torch.int64)

    def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        """See `Denoiser`."""
        logits, order_logits = self._denoise(tokens, hidden, lengths)
        logits = logits.clone()
        logits[:, self._positions.to(logits.device), self._ids.to(logits.device)] = -torch.inf
        return Prediction(logits, order_logits)


def cross_entropy(token_logits: Tensor, x: Tensor) -> Tensor:
    """`-log p(x_i | canvas)` in nats at every position, float32: logits [B, L, V] and clean ids [B, L] -> [B, L]."""
    B, L, V = token_logits.shape
    flat = F.cross_entropy(token_logits.float().reshape(B * L, V), x.reshape(B * L), reduction="none")
    return flat.view(B, L)

"""How sure a model is of each position: confidence, margin, entropy."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

Measure = Literal["confidence", "margin", "entropy"]
LANES = 16  # rows padded to whole vector registers: a remainder takes another code path, which may round differently


class Confidence(NamedTuple):
    """How sure the model is of each position, float64, at temperature 1 over the whole vocabulary."""

    confidence: Tensor
    margin: Tensor
    entropy: Tensor


def confidence_of(token_logits: Tensor) -> Confidence:
    """Probability of the likeliest id, its lead over the second, and the entropy in nats: [..., V] -> [...] each."""
    log_p = token_logits.to(torch.float64).log_softmax(-1)
    return Confidence(*(sureness(log_p, measure) for measure in get_args(Measure)))


def sureness(log_p: Tensor, measure: Measure) -> Tensor:
    """One of `Confidence`'s three, of float64 log-probabilities [..., V] -> [...]."""
    if measure == "confidence":
        return log_p.amax(-1).exp()
    if measure == "margin":
        best = log_p.topk(min(2, log_p.shape[-1]), dim=-1).values.exp()
        return best[..., 0] - best[..., 1] if best.shape[-1] == 2 else best[..., 0]
    p = log_p.exp()
    return -(p * log_p.masked_fill(p == 0, 0.0)).sum(-1)

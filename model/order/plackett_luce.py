"""Plackett-Luce orders: drawing them, and the probability of orders, prefixes and next positions.

`P(sigma) = prod_k w[sigma_k] / sum_{j >= k} w[sigma_j]`: LARGE w is revealed first. `sigma` [..., L] lists positions in
the order of their reveal. Everything is float64: a float32 tail would forbid unlikely orders.
"""

from collections.abc import Sequence
from math import lgamma

import torch
from torch import Tensor

from unveil.model.order.uniforms import gumbel, open_uniforms


def gumbel_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise, float64, finite in both tails (it spans about -3.6 to 36.7), on the generator's device."""
    return gumbel(open_uniforms(shape, generator))


def plackett_luce_order(log_w: Tensor, noise: Tensor, known: Tensor | None = None) -> Tensor:
    """Gumbel-top-k: log-weights and Gumbel noise [..., L] (which broadcast) -> sigma [..., L] int64.

    Positions `known` [..., L] come first, in position order; the law over the rest is Plackett-Luce with the same
    weights. Ties go to the lowest position.
    """
    key = (log_w.double() + noise).detach()
    if known is not None:
        key = key.masked_fill(known, torch.inf)
    return key.argsort(dim=-1, descending=True, stable=True)


def deterministic_order(log_w: Tensor, known: Tensor | None = None) -> Tensor:
    """The likeliest order: descending log-weight, ties to the lowest position, `known` first: [..., L] -> [..., L]."""
    return plackett_luce_order(log_w, torch.zeros_like(log_w, dtype=torch.float64), known)


def hidden_after(sigma: Tensor, num_visible: Tensor) -> Tensor:
    """What is hidden once the first `num_visible` [...] positions of sigma [..., L] are known: [..., L] bool."""
    rank = sigma.argsort(dim=-1)  # a permutation's argsort is its inverse: the place of each position
    return rank >= num_visible[..., None]


def log_prob(log_w: Tensor, sigma: Tensor) -> Tensor:
    """Log-probability of a whole order: log-weights and sigma [..., L] -> [...]."""
    return _choice_log_probs(log_w, sigma).sum(-1)


def prefix_log_prob(log_w: Tensor, sigma: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Log-probability of the ordered piece sigma[start:stop], given that sigma[:start] is known: [...].

    The piece, not the set it covers: this is the score function that order-form gradients need.
    """
    place = torch.arange(sigma.shape[-1], device=sigma.device)
    inside = (place >= start[..., None]) & (place < stop[..., None])
    return _choice_log_probs(log_w, sigma).masked_fill(~inside, 0.0).sum(-1)


def _choice_log_probs(log_w: Tensor, sigma: Tensor) -> Tensor:
    """Entry k: log-probability of choosing sigma_k among sigma_k, sigma_{k+1}, ...: [..., L]."""
    chosen = log_w.double().expand(sigma.shape).gather(-1, sigma)
    return chosen - chosen.flip(-1).logcumsumexp(-1).flip(-1)


def next_log_probs(log_w: Tensor, hidden: Tensor) -> Tensor:
    """Log-probability of each hidden position to be the next one, minus infinity elsewhere: [..., L] float64.

    A row with nothing hidden is minus infinity throughout, without a NaN in value or gradient.
    """
    visible = ~hidden & hidden.any(-1, keepdim=True)  # an empty row keeps its weights until the last line
    return log_w.double().masked_fill(visible, -torch.inf).log_softmax(-1).masked_fill(~hidden, -torch.inf)


def fix_gauge(log_w: Tensor) -> Tensor:
    """The same law with mean log-weight zero: [..., L] -> [..., L]. Without it the scale drifts under training."""
    return log_w - log_w.mean(-1, keepdim=True)


def order_entropy(log_w: Tensor, noise: Tensor | None = None) -> Tensor:
    """How spread out the law of log_w [L] still is: 1 for uniform, 0 for one order. Scalar, for logs.

    The entropies of the next choice are summed along the likeliest order and divided by log L!, their sum under the
    uniform law. With Gumbel `noise` [N, L] they are averaged along N drawn orders instead, which estimates the entropy
    of the law itself without bias.
    """
    L = log_w.shape[-1]
    sigma = deterministic_order(log_w)[None] if noise is None else plackett_luce_order(log_w, noise)  # [N, L]
    num_visible = torch.arange(L, device=log_w.device)
    hidden = hidden_after(sigma[:, None, :], num_visible)  # [N, L, L]
    entropy: Tensor = torch.special.entr(next_log_probs(log_w.detach(), hidden).exp()).sum(-1)  # [N, L]
    return entropy.sum(-1).mean() / max(lgamma(L + 1), 1e-300)

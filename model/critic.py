"""A critic of orders: which losses to expect where, given what is visible; and what a law costs by it.

A score function learns of an order's worth from one noisy number a row. The critic learns from every loss at every
hidden position of every row, whichever order the row followed: `f_i(S) = E_x[CE_i(x_S) - c_i(x)]` by least squares. By
it any law may be tried on simulated orders, as many as wanted, without a forward of the denoiser. Knows no denoiser.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.orders import hidden_after, next_log_probs, plackett_luce_order

Cost = Callable[[Tensor], Tensor]
MIN_WIDTH = 64
MAX_LENGTH = 1024  # the orders tried in a step take memory that grows with the square of it


class Critic(nn.Module):
    """`f(S)`: linear in what is visible, and a small MLP for what positions do together. Starts at zero."""

    def __init__(self, length: int) -> None:
        super().__init__()
        width = max(MIN_WIDTH, 2 * length)
        self.linear = nn.Linear(length, length)
        self.inner, self.outer = nn.Linear(length, width), nn.Linear(width, length)
        for parameter in (*self.linear.parameters(), *self.outer.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, hidden: Tensor) -> Tensor:
        """Expected losses in excess of the control, in nats: hidden [..., L] bool -> [..., L] float32."""
        signs = 1.0 - 2.0 * hidden.float()
        return self.linear(signs) + self.outer(F.gelu(self.inner(signs)))  # type: ignore[no-any-return]


def critic_error(expected: Tensor, cross_entropy: Tensor, hidden: Tensor, *, control: Tensor) -> Tensor:
    """What the critic minimises: squared error over the hidden positions, a row: [B, L] each -> [B].

    Its minimum is the conditional mean, whatever law the prefixes came from.
    """
    target = (cross_entropy - control).detach().float()
    return (expected.float() - target).square().masked_fill(~hidden, 0.0).sum(-1)


def simulated_nelbo(log_w: Tensor, cost: Cost, noise: Tensor) -> Tensor:
    """The NELBO of Plackett-Luce(log_w [L]) by `cost`, over orders drawn with Gumbel `noise` [M, L], M >= 2: scalar.

    `cost` maps hidden sets [N, L] bool to nats [N, L] and is constant here. With the next position summed out at every
    prefix of every order, `sum_k sum_i q_i f_i(S_k)`; its gradient for log_w is unbiased: through q, and each choice's
    score weighted with what the order costs after it, less the mean of the other orders at that step.
    """
    M, L = noise.shape
    assert M >= 2
    sigma = plackett_luce_order(log_w, noise)  # [M, L]
    hidden = hidden_after(sigma[:, None], torch.arange(L, device=noise.device).expand(M, L))  # [M, k, L]
    with torch.no_grad():
        costs = cost(hidden.view(M * L, L)).double().view(M, L, L).masked_fill(~hidden, 0.0)
    log_q = next_log_probs(log_w, hidden)
    stages = (log_q.exp() * costs).sum(-1)  # [M, k]
    with torch.no_grad():
        after = stages.flip(-1).cumsum(-1).flip(-1) - stages  # what is still to pay once the k-th choice is made
        advantage = (after - after.mean(0)) * M / (M - 1)
    score = (log_q.gather(-1, sigma[..., None]).squeeze(-1) * advantage).sum(-1)
    return (stages.sum(-1) + score - score.detach()).mean()

"""The posterior over training orders: a small network that sees the clean row. Knows no loss; never served.

`q(sigma | x) = Plackett-Luce(w_psi(x))` (LO-ARM, arXiv 2503.05979): because it sees the whole row it can draw a whole
order, and so any prefix, in one pass, where the policy that it teaches would have to be rolled out position by
position.
"""

from torch import Tensor

from model.manifest import Architecture, OrderSpec
from model.order_heads import OrderHead, Reading
from model.transformer import Trunk


class Posterior(Trunk):
    """A trunk and an order head of its own. `mask` is not a mask here: it marks what is known from the start."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.order_head = OrderHead(architecture, OrderSpec(kind="contextual"))
        self.initialise()

    def embed(self, tokens: Tensor, known: Tensor) -> Tensor:
        """Every id is seen: [B, L] ids and bools -> [B, L, D]."""
        return self.embedding(tokens + self.get_buffer("offsets")) + known[..., None] * self.mask  # type: ignore[no-any-return]

    def forward(self, tokens: Tensor, known: Tensor, lengths: Tensor) -> Tensor:
        """Clean ids and what is known from the start [B, L], lengths [B] -> float32 log-weights [B, L]."""
        states = self.trunk(tokens, known, lengths)
        return self.order_head(Reading(states, None, tokens, ~known, lengths))  # type: ignore[no-any-return]

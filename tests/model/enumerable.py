"""A world small enough to enumerate: a joint distribution over V**L sequences and a table that denoises it."""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from unveil.model.oracle.exact import subset_table


@dataclass(frozen=True)
class World:
    """`p` [V**L] over the sequences `x` [V**L, L]; `logits` [(V+1)**L, L, V], one entry for every partial canvas."""

    x: Tensor
    p: Tensor
    logits: Tensor

    def cross_entropy(self, x: Tensor, hidden: Tensor) -> Tensor:
        """-log p(x_i | what is visible), [N, L] ids and bools -> [N, L]."""
        V, L = self.logits.shape[-1], x.shape[-1]
        digits = torch.where(hidden, 0, x + 1)
        canvas = (digits * (V + 1) ** torch.arange(L)).sum(-1)
        entry = (canvas[:, None] * L + torch.arange(L)) * V + x
        return -self.logits.log_softmax(-1).flatten().index_select(0, entry.flatten()).view(x.shape)

    def tables(self) -> Tensor:
        """CE(i | S) for every sequence: [V**L, 2**L, L]."""
        return subset_table(self.cross_entropy, self.x)

    def mean_table(self) -> Tensor:
        """CE(i | S) averaged over p: [2**L, L]."""
        return (self.p[:, None, None] * self.tables()).sum(0)

    def draw(self, B: int, generator: torch.Generator) -> Tensor:
        """B sequences from p: [B, L]."""
        return self.x[torch.multinomial(self.p, B, replacement=True, generator=generator)]


def random_world(*, L: int = 4, V: int = 2, seed: int = 0, imperfection: float = 0.0) -> World:
    """A random joint with its perfect denoiser, the logits then spoilt by normal noise of scale `imperfection`."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.tensor(list(product(range(V), repeat=L)))
    p = (1.5 * torch.randn(V**L, generator=generator, dtype=torch.float64)).softmax(0)
    canvases = torch.tensor(list(product(range(V + 1), repeat=L))).flip(-1)  # digit i has weight (V+1)**i
    agrees = ((canvases[:, None] == 0) | (canvases[:, None] == x + 1)).all(-1).double()  # [(V+1)**L, V**L]
    is_value = torch.nn.functional.one_hot(x, V).double()  # [V**L, L, V]
    joint = torch.einsum("cs,s,siv->civ", agrees, p, is_value)
    logits = (joint + 1e-300).log().clamp(min=-30)
    noise = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    return World(x=x, p=p, logits=logits + imperfection * noise)

"""A denoiser over a `World` whose next position depends on what is revealed: tables instead of a network."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.model.enumerable import World, random_world
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.denoiser import Prediction
from unveil.model.oracle.exact import subset_masks


@dataclass(frozen=True)
class TableDenoiser:
    """Looks up token logits and order logits of every partial canvas."""

    world: World
    order_logits: Tensor  # [(V + 1)**L, L]

    def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        entry = self._entry(tokens, hidden)
        return Prediction(self.world.logits[entry], self.order_logits[entry])

    def _entry(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        V, L = self.world.logits.shape[-1], tokens.shape[-1]
        return (torch.where(hidden, 0, tokens + 1) * (V + 1) ** torch.arange(L)).sum(-1)

    def order_table(self) -> Tensor:
        """log pi(i | x_S) for every sequence and subset: [V**L, 2**L, L]."""
        x = self.world.x
        masks = subset_masks(x.shape[-1])
        hidden = ~masks[None].expand(len(x), *masks.shape)
        entry = self._entry(x[:, None].expand(hidden.shape), hidden)
        return self.order_logits[entry].masked_fill(~hidden, -torch.inf).log_softmax(-1).nan_to_num(-torch.inf)


def random_denoiser(*, L: int = 3, V: int = 2, seed: int = 0, spread: float = 1.0) -> TableDenoiser:
    world = random_world(L=L, V=V, seed=seed, imperfection=0.5)
    generator = torch.Generator().manual_seed(seed + 1)
    order_logits = spread * torch.randn((V + 1) ** L, L, generator=generator, dtype=torch.float64)
    return TableDenoiser(world, order_logits)


def blank(L: int, *, seed: int = 0, params: SamplingParams | None = None) -> Canvas:
    """A canvas with everything hidden."""
    return Canvas.start((0,) * L, (True,) * L, seed=seed, params=params or SamplingParams())

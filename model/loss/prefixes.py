"""Partial orders that training rows are shown: a known set, then the first k positions of an order."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from unveil.model.order.plackett_luce import gumbel_noise, hidden_after, plackett_luce_order
from unveil.model.order.uniforms import stratified_uniforms

_DECIDED = 64.0  # log-weights this far apart leave nothing to chance


class Turns(NamedTuple):
    """Some positions of each row, `positions` [B, M], and what is hidden when each is asked, [B, M, L] bool."""

    positions: Tensor
    hidden: Tensor


class Questions(NamedTuple):
    """Hidden positions asked before the turns of others: `positions` and `turns` [B, M], the ranks of what is not yet
    revealed then; `weights` [B, M], 0 where nothing is asked."""

    positions: Tensor
    turns: Tensor
    weights: Tensor


class Prefixes(NamedTuple):
    """For each row: an order, how much of it is visible, and where it came from.

    `sigma` [B, L] starts with the `num_known` [B] known positions (prompt and padding); `num_revealed` [B] more are
    visible, the first k of the order over the rest; `hidden` [B, L] is what remains, never empty. `follows_law` [B]:
    drawn from the learned law; `uniform` [B]: uniformly; the others run from left to right. `prompted` [B]: something
    beyond padding was known from the start.
    """

    sigma: Tensor
    num_known: Tensor
    num_revealed: Tensor
    hidden: Tensor
    follows_law: Tensor
    uniform: Tensor
    prompted: Tensor

    @property
    def num_free(self) -> Tensor:
        """n = L - |C|, the positions that the order runs over: [B]."""
        return self.sigma.shape[-1] - self.num_known

    @property
    def places(self) -> Tensor:
        """Where each position stands in its row's order, known ones first: [B, L]."""
        return self.sigma.argsort(-1)

    @property
    def ranks(self) -> Tensor:
        """[B, L]: 0 for what is visible, then 1, 2, ... along the order."""
        return (self.places - (self.num_known + self.num_revealed)[:, None] + 1).clamp(min=0)

    @property
    def history(self) -> Tensor:
        """[B, L]: 0 for what was known from the start, then 1, 2, ... for what is revealed in the order in which it
        was, and the number after those for all that is hidden."""
        since = (self.places - self.num_known[:, None] + 1).clamp(min=0)
        return torch.minimum(since, self.num_revealed[:, None] + 1)


@dataclass(frozen=True, slots=True)
class PrefixDraws:
    """All the chance in B rows' prefixes, before any law is known; so a law may be computed from the rows themselves.

    `known` [B, L] and `prompted`, `uniform_rows`, `reading_rows` [B] bool: these run from left to right; `fraction` [B]
    float64 in [0, 1) says how much is revealed; `noise` [K, B, L] is the Gumbel noise of K orders a row.
    """

    known: Tensor
    prompted: Tensor
    uniform_rows: Tensor
    reading_rows: Tensor
    fraction: Tensor
    noise: Tensor

    def cut(self, index: slice, device: torch.device | None = None) -> "PrefixDraws":
        """These rows alone, on a device: a process's share of a global batch, say."""
        rows = (self.known, self.prompted, self.uniform_rows, self.reading_rows, self.fraction)
        known, prompted, uniform, reading, fraction = (part[index].to(device) for part in rows)
        return PrefixDraws(known, prompted, uniform, reading, fraction, self.noise[:, index].to(device))

    def whole(self) -> "PrefixDraws":
        """The same rows with nothing of their orders revealed."""
        return replace(self, fraction=torch.zeros_like(self.fraction))

    def under(self, log_w: Tensor) -> Prefixes:
        """The prefixes under a law, `log_w` [L] or [B, L]: K * B rows, all first orders first, a row's k its own."""
        K, B, L = self.noise.shape
        num_known = self.known.sum(-1)
        num_free = L - num_known
        num_revealed = torch.minimum((self.fraction * num_free).long(), num_free - 1)
        law = torch.where(self.uniform_rows[:, None], torch.zeros_like(log_w), log_w.detach())  # [B, L]
        reading = -_DECIDED * torch.arange(L, device=law.device, dtype=law.dtype)
        law = torch.where(self.reading_rows[:, None], reading, law)
        sigma = plackett_luce_order(law, self.noise, self.known).view(K * B, L)
        num_known, num_revealed = num_known.repeat(K), num_revealed.repeat(K)
        return Prefixes(
            sigma=sigma,
            num_known=num_known,
            num_revealed=num_revealed,
            hidden=hidden_after(sigma, num_known + num_revealed),
            follows_law=~(self.uniform_rows | self.reading_rows).repeat(K),
            uniform=self.uniform_rows.repeat(K),
            prompted=self.prompted.repeat(K),
        )


def prefix_draws(
    known: Tensor,
    *,
    generator: torch.Generator,
    uniform_rows: Tensor | None = None,
    reading_rows: Tensor | None = None,
    prompted: Tensor | None = None,
    num_draws: int = 1,
) -> PrefixDraws:
    """Draws for B rows with `known` [B, L] bool positions. Tensors are on one device, the generator on any.

    k is stratified over {0..n-1}, once for the rows of the reported NELBO and once for the others. `uniform_rows` [B]
    follow a uniform order, `reading_rows` [B] of the others run from left to right, the rest the law. `prompted` [B]
    defaults to `known.any(-1)`: give it where padding is passed as known. With `num_draws` K > 1 each row is drawn K
    times with the same k, for leave-one-out.
    ValueError if a row has nothing to generate.
    """
    B, L = known.shape
    if bool(known.all(-1).any()):
        raise ValueError("a row with every position known leaves nothing to generate")
    nobody = torch.zeros_like(known[:, 0])
    uniform_rows, reading_rows = (nobody if rows is None else rows for rows in (uniform_rows, reading_rows))
    reading_rows = reading_rows & ~uniform_rows
    prompted = known.any(-1) if prompted is None else prompted
    fraction = stratified_uniforms(~uniform_rows & ~reading_rows & ~prompted, generator)
    noise = gumbel_noise((num_draws, B, L), generator).to(known.device)
    return PrefixDraws(known, prompted, uniform_rows, reading_rows, fraction, noise)


def draw_prefixes(
    log_w: Tensor,
    *,
    known: Tensor,
    generator: torch.Generator,
    uniform_rows: Tensor | None = None,
    prompted: Tensor | None = None,
    num_draws: int = 1,
) -> Prefixes:
    """What each row shows under a law that is known beforehand, `log_w` [L] or [B, L]: see `prefix_draws`."""
    draws = prefix_draws(known, generator=generator, uniform_rows=uniform_rows, prompted=prompted, num_draws=num_draws)
    return draws.under(log_w)

"""Partial orders that training rows are shown: a known set, then the first k positions of an order."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unveil.model.order.plackett_luce import gumbel_noise, hidden_after, plackett_luce_order
from unveil.model.order.uniforms import stratified_uniforms


class Turns(NamedTuple):
    """Some positions of each row's order, `positions` [B, M], and what is hidden just before the turn of each,
    `hidden` [B, M, L] bool."""

    positions: Tensor
    hidden: Tensor


class Prefixes(NamedTuple):
    """For each row: an order, how much of it is visible, and where it came from.

    `sigma` [B, L] starts with the `num_known` [B] known positions (prompt and padding); `num_revealed` [B] more are
    visible, the first k of the order over the rest; `hidden` [B, L] is what remains, never empty. `follows_law` [B]:
    drawn from the learned law (else uniform). `prompted` [B]: something beyond padding was known from the start.
    `offset` [B], uniform in [0, 1), says which turns of the rest of the order are looked at.
    """

    sigma: Tensor
    num_known: Tensor
    num_revealed: Tensor
    hidden: Tensor
    follows_law: Tensor
    prompted: Tensor
    offset: Tensor

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

    def some_turns(self, num: int) -> Turns:
        """Up to `num` of the hidden positions, evenly along the order from each row's own offset on. Short rows give
        some more than once."""
        first = (self.num_known + self.num_revealed)[:, None]  # [B, 1]
        M = min(num, self.sigma.shape[-1])
        share = (torch.arange(M, device=first.device) + self.offset[:, None]) / M
        places = first + ((self.sigma.shape[-1] - first) * share).long()
        return Turns(self.sigma.gather(-1, places), self.places[:, None, :] >= places[..., None])


@dataclass(frozen=True, slots=True)
class PrefixDraws:
    """All the chance in B rows' prefixes, before any law is known; so a law may be computed from the rows themselves.

    `known` [B, L] and `prompted`, `uniform_rows` [B] bool; `fraction` [B] float64 in [0, 1) says how much is revealed;
    `noise` [K, B, L] is the Gumbel noise of K orders a row. With `shows_little` half of the rows reveal nothing, the
    others anything up to a whole order, as `model.loss.objective.teacher_forced` takes them.
    """

    known: Tensor
    prompted: Tensor
    uniform_rows: Tensor
    fraction: Tensor
    noise: Tensor
    shows_little: bool = False

    def cut(self, index: slice, device: torch.device | None = None) -> "PrefixDraws":
        """These rows alone, on a device: a process's share of a global batch, say."""
        rows = (self.known[index], self.prompted[index], self.uniform_rows[index], self.fraction[index])
        known, prompted, uniform_rows, fraction, noise = (part.to(device) for part in (*rows, self.noise[:, index]))
        return PrefixDraws(known, prompted, uniform_rows, fraction, noise, self.shows_little)

    def under(self, log_w: Tensor) -> Prefixes:
        """The prefixes under a law, `log_w` [L] or [B, L]: K * B rows, all first orders first, a row's k its own."""
        K, B, L = self.noise.shape
        num_known = self.known.sum(-1)
        num_free = L - num_known
        fraction, offset = self._begun(num_free)
        num_revealed = torch.minimum((fraction * num_free).long(), num_free - 1)
        law = torch.where(self.uniform_rows[:, None], torch.zeros_like(log_w), log_w.detach())  # [B, L]
        sigma = plackett_luce_order(law, self.noise, self.known).view(K * B, L)
        num_known, num_revealed = num_known.repeat(K), num_revealed.repeat(K)
        return Prefixes(
            sigma=sigma,
            num_known=num_known,
            num_revealed=num_revealed,
            hidden=hidden_after(sigma, num_known + num_revealed),
            follows_law=~self.uniform_rows.repeat(K),
            prompted=self.prompted.repeat(K),
            offset=offset.repeat(K),
        )

    def _begun(self, num_free: Tensor) -> tuple[Tensor, Tensor]:
        """How much of the order is revealed, and what the same chance leaves undecided: [B] each."""
        if not self.shows_little:
            return self.fraction, self.fraction * num_free % 1
        fraction = (2 * self.fraction - 1).clamp(min=0.0)
        return fraction, torch.where(self.fraction < 0.5, 2 * self.fraction, fraction * num_free % 1)


def prefix_draws(
    known: Tensor,
    *,
    generator: torch.Generator,
    uniform_rows: Tensor | None = None,
    prompted: Tensor | None = None,
    num_draws: int = 1,
) -> PrefixDraws:
    """Draws for B rows with `known` [B, L] bool positions. Tensors are on one device, the generator on any.

    k is stratified over {0..n-1}, once for the rows of the reported NELBO and once for the others. `uniform_rows` [B]
    follow a uniform order, the others the law. `prompted` [B] defaults to `known.any(-1)`: give it where padding is
    passed as known. With `num_draws` K > 1 each row is drawn K times with the same k, for leave-one-out.
    ValueError if a row has nothing to generate.
    """
    B, L = known.shape
    if bool(known.all(-1).any()):
        raise ValueError("a row with every position known leaves nothing to generate")
    uniform_rows = torch.zeros_like(known[:, 0]) if uniform_rows is None else uniform_rows
    prompted = known.any(-1) if prompted is None else prompted
    fraction = stratified_uniforms(~uniform_rows & ~prompted, generator)
    noise = gumbel_noise((num_draws, B, L), generator).to(known.device)
    return PrefixDraws(known, prompted, uniform_rows, fraction, noise)


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

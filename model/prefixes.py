"""Partial orders that training rows are shown: a known set, then the first k positions of an order. Knows no loss."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from model.draws import stratified_uniforms
from model.orders import gumbel_noise, hidden_after, plackett_luce_order


@dataclass(frozen=True, slots=True)
class Prefixes:
    """For each row: an order, how much of it is visible, and where it came from.

    `sigma` [B, L] starts with the `num_known` [B] known positions (prompt and padding); `num_revealed` [B] more are
    visible, the first k of the order over the rest; `hidden` [B, L] is what remains, never empty. `follows_law` [B]:
    drawn from the learned law (else uniform). `prompted` [B]: something beyond padding was known from the start.
    """

    sigma: Tensor
    num_known: Tensor
    num_revealed: Tensor
    hidden: Tensor
    follows_law: Tensor
    prompted: Tensor

    @property
    def num_free(self) -> Tensor:
        """n = L - |C|, the positions that the order runs over: [B]."""
        return self.sigma.shape[-1] - self.num_known

    def rows(self, index: Tensor | slice) -> "Prefixes":
        """These rows alone: a process's share of a global batch, say."""
        return Prefixes(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def draw_prefixes(
    log_w: Tensor,
    *,
    known: Tensor,
    generator: torch.Generator,
    uniform_rows: Tensor | None = None,
    prompted: Tensor | None = None,
    num_draws: int = 1,
) -> Prefixes:
    """Draws what each row shows: `log_w` [L] or [B, L], `known` [B, L] bool -> Prefixes of B rows.

    k is stratified over {0..n-1}, once for the rows of the reported NELBO and once for the others. `uniform_rows` [B]
    follow a uniform order, the others the law. `prompted` [B] defaults to `known.any(-1)`: give it where padding is
    passed as known. With `num_draws` K > 1 each row is drawn K times with the same k, for leave-one-out: K * B rows,
    all first draws first. Tensors are on one device, the generator on any. ValueError if a row has nothing to generate.
    """
    B, L = known.shape
    if bool(known.all(-1).any()):
        raise ValueError("a row with every position known leaves nothing to generate")
    uniform_rows = torch.zeros_like(known[:, 0]) if uniform_rows is None else uniform_rows
    prompted = known.any(-1) if prompted is None else prompted
    num_known = known.sum(-1)
    fraction = stratified_uniforms(~uniform_rows & ~prompted, generator)
    num_free = L - num_known
    num_revealed = torch.minimum((fraction * num_free).long(), num_free - 1)
    noise = gumbel_noise((num_draws, B, L), generator).to(known.device)
    law = torch.where(uniform_rows[:, None], torch.zeros_like(log_w), log_w.detach())  # [B, L]
    sigma = plackett_luce_order(law, noise, known).view(num_draws * B, L)
    num_known, num_revealed = num_known.repeat(num_draws), num_revealed.repeat(num_draws)
    return Prefixes(
        sigma=sigma,
        num_known=num_known,
        num_revealed=num_revealed,
        hidden=hidden_after(sigma, num_known + num_revealed),
        follows_law=~uniform_rows.repeat(num_draws),
        prompted=prompted.repeat(num_draws),
    )

"""What every denoiser network of this project is, whatever its inside. Knows no loss, no order and no file.

`model/transformer.py`, `model/planes.py` and, for those trained elsewhere, `model/imported.py` are all there are;
`model/networks.py` picks one by its architecture.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.denoiser import Prediction
from model.manifest import Architecture, ImportedArchitecture, OrderSpec
from model.order_heads import OrderHead, Reading


class Depths(NamedTuple):
    """The last prediction, and the token logits of the loops before it, each [B, L, V]; none without loops."""

    prediction: Prediction
    earlier: tuple[Tensor, ...]


class Stretches(NamedTuple):
    """Loops taken `size` at a time. Behind each stretch `goes_on` is given the token logits so far, [B, L, V], and says
    which rows need another, [B] bool; the others keep what they have. With `is_cut` no gradient goes from one stretch
    into the one before. `is_whole`: a row that is done is computed on for nothing while others need it, so that all
    shapes stay as they are and no other row's last bits hang on it."""

    size: int
    goes_on: Callable[[Tensor], Tensor]
    is_cut: bool = False
    is_whole: bool = False

    @classmethod
    def all(cls, loops: int) -> "Stretches":
        """A single one: every row goes through all `loops`."""
        return cls(loops, lambda logits: torch.ones_like(logits[:, 0, 0], dtype=torch.bool))


class Network(nn.Module):
    """A denoiser in the sense of `model.denoiser.Denoiser` with a token head and an order head on one trunk."""

    architecture: Architecture | ImportedArchitecture
    order: OrderSpec
    order_head: OrderHead
    blocks: nn.ModuleList

    def depths(self, tokens: Tensor, hidden: Tensor, lengths: Tensor, *, stretches: Stretches | None = None) -> Depths:
        """What each loop of the trunk would say, for training all of them; in stretches where they are given."""
        raise NotImplementedError

    def read(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Reading:
        """All that the order head is given."""
        raise NotImplementedError

    def _predict(self, reading: Reading) -> Prediction:
        """What both heads say of it."""
        assert reading.token_logits is not None
        return Prediction(reading.token_logits, self.order_head(reading))

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def deepen(
    x: Tensor,
    *,
    loops: int,
    loop: Callable[[Tensor, Tensor], Tensor],
    say: Callable[[Tensor], Tensor],
    stretches: Stretches,
    says_all: bool = True,
) -> tuple[Tensor, list[Tensor]]:
    """States [B, ...] gone through `loops` in stretches: the last states, and what `say` made of them after each loop,
    or after each stretch alone.

    `loop` is given states and which of the B rows they are of. A row that goes no further keeps its state, and its
    logits stand, without a gradient, for those of the loops that it is spared.
    """
    rows = torch.arange(len(x), device=x.device)
    is_on = torch.ones_like(rows, dtype=torch.bool)
    state, said = x, list[Tensor]()
    for number in range(1, loops + 1):
        x = loop(x, rows)
        is_end = number % stretches.size == 0 or number == loops
        if says_all or is_end:
            logits = say(x)
            said.append(_put(said[-1], logits, rows, is_on) if said else logits)
        if not is_end:
            continue
        state = _put(state.to(x.dtype), x, rows, is_on)
        if number == loops:
            break
        latest = said[-1].detach()
        is_on = is_on & stretches.goes_on(latest)
        if not is_on.any():
            said += [latest] * (loops - number if says_all else 0)
            break
        if not stretches.is_whole:
            x, rows = x[is_on[rows]], is_on.nonzero().squeeze(-1)
        x = x.detach() if stretches.is_cut else x
    return state, said


def _put(old: Tensor, new: Tensor, rows: Tensor, is_on: Tensor) -> Tensor:
    """`old` [B, ...], without its gradient, with what is `new` of `rows` in the places of those that are on."""
    return old.detach().index_copy(0, rows[is_on[rows]], new[is_on[rows]])


def initialise(module: nn.Module) -> None:
    """Fresh weights of a linear layer or an embedding; nothing for other modules."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)

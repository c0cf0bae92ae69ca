"""What every denoiser network of this project is, whatever its inside.

`model/network/transformer.py`, `late.py`, `sudoku.py` and, for those trained elsewhere, `imported.py` are all there
are; `build.py` picks one by its architecture.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from unveil.model.denoiser import Prediction
from unveil.model.network.architecture import Architecture, ImportedArchitecture, OrderSpec
from unveil.model.network.order_heads import OrderHead, Reading


class Depths(NamedTuple):
    """The last prediction, and the token logits of the loops before it, each [B, L, V]; none without loops."""

    prediction: Prediction
    earlier: tuple[Tensor, ...]


class Network(nn.Module):
    """A denoiser in the sense of `model.denoiser.Denoiser` with a token head and an order head on one trunk."""

    architecture: Architecture | ImportedArchitecture
    order: OrderSpec
    order_head: OrderHead
    blocks: nn.ModuleList
    is_one_by_one = False  # whether a CPU computes the rows of a batch one after the other

    def depths(self, tokens: Tensor, hidden: Tensor, lengths: Tensor, *, backward_loops: int | None = None) -> Depths:
        """What each loop of the trunk would say of clean `tokens`, for training all of them. No gradient goes back
        through more loops than `backward_loops`."""
        raise NotImplementedError

    def in_turn(self, tokens: Tensor, ranks: Tensor, lengths: Tensor) -> Tensor:
        """Token logits [B, L, V] of every position of clean `tokens` as of just before its turn, in one forward.

        `ranks` [B, L] are 0 for what is visible from the start, then 1, 2, ... A hidden
        position may have any rank above those of the known ones: its logits are then as of now. Positions of one rank
        do not read each other, but for those of rank 0. For networks that read ranks.
        """
        logits = self.read_in_turn(tokens, ranks, lengths).token_logits
        assert logits is not None
        return logits

    @property
    def all_blocks(self) -> Sequence[nn.Module]:
        """What is compiled and sharded one by one."""
        return tuple(self.blocks)

    @property
    def reads_ranks(self) -> bool:
        """Whether what it says depends on the order in which the visible was revealed: its forward then takes the
        `ranks` of `in_turn`. Without them all that is visible was so from the start."""
        return isinstance(self.architecture, Architecture) and self.architecture.query_layers > 0

    def read(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Reading:
        """All that the order head is given."""
        raise NotImplementedError

    def read_in_turn(self, tokens: Tensor, ranks: Tensor, lengths: Tensor) -> Reading:
        """The same of every position as of just before its turn: arguments as of `in_turn`."""
        raise NotImplementedError

    def predict_now(self, tokens: Tensor, hidden: Tensor, lengths: Tensor, ranks: Tensor) -> Prediction:
        """What a network that reads ranks says of hidden positions of the highest rank; ids there may be any."""
        raise NotImplementedError

    def _predict(self, reading: Reading) -> Prediction:
        """What both heads say of it."""
        assert reading.token_logits is not None
        return Prediction(reading.token_logits, self.order_head(reading))

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def initialise(module: nn.Module) -> None:
    """Fresh weights of a linear layer or an embedding; nothing for other modules."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)

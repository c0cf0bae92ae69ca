"""What the sampler and the objective take a denoiser to be: a callable, or its two stages."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Prediction(NamedTuple):
    """What one trunk pass says of every position of every canvas.

    `token_logits` [B, L, V], unnormalised, minus infinity at ids that a position does not have; `order_logits` [B, L],
    log-weights of the next position to reveal, meaningful up to a constant and at hidden positions only.
    """

    token_logits: Tensor
    order_logits: Tensor


class Counts(NamedTuple):
    """What a served denoiser has computed so far.

    `num_positions`: positions in its forwards, padding included; `num_useful` without; `num_saved`: steps of canvases
    that needed no forward of their own.
    """

    num_positions: int = 0
    num_useful: int = 0
    num_saved: int = 0


class Denoiser(Protocol):
    """`tokens` [B, L] int64, `hidden` [B, L] bool, `lengths` [B] int64; positions from `lengths[b]` on are padding."""

    def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction: ...


class Begun(NamedTuple):
    """The first stage's answer: `order_logits` [B, L] as in `Prediction`; `states` [B, L, S], which `finish` reads."""

    order_logits: Tensor
    states: Tensor


class Stages(Protocol):
    """A denoiser whose token logits are computed only where they are asked for. V may be wider than the vocabulary."""

    def begin(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Begun:
        """Arguments as a `Denoiser` takes them."""
        ...

    def finish(self, states: Tensor, positions: Tensor) -> Tensor:
        """Token logits [R, V] of states [R, S] out of `begin`'s that stand at `positions` [R]."""
        ...

    def rounded(self, num: int) -> int:
        """How many positions `finish` would rather be asked for than `num`: as many or more."""
        ...


class Whole:
    """A denoiser that knows no stages, in two: the first one computes everything."""

    def __init__(self, denoise: Denoiser) -> None:
        self._denoise = denoise

    def begin(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Begun:
        """See `Stages`."""
        logits, order_logits = self._denoise(tokens, hidden, lengths)
        return Begun(order_logits, logits)

    def finish(self, states: Tensor, positions: Tensor) -> Tensor:  # noqa: ARG002
        """See `Stages`."""
        return states

    def rounded(self, num: int) -> int:
        """See `Stages`."""
        return num

    def sketch(self) -> "Whole":
        """See `sketch_of`."""
        return Whole(self._denoise.sketch()) if hasattr(self._denoise, "sketch") else self


def in_stages(denoise: "Denoiser | Stages") -> Stages:
    """The same in two stages."""
    return cast(Stages, denoise) if hasattr(denoise, "begin") else Whole(denoise)


def sketch_of(stages: Stages) -> Stages:
    """Stages that run every operation that these run, in the same shapes, but few times: layers of one shape once. They
    answer something else. The stages themselves where no shorter ones are known."""
    return cast(Stages, stages.sketch()) if hasattr(stages, "sketch") else stages


def device_of(denoise: "Denoiser | Stages") -> torch.device:
    """Where a network's weights are; of what has none the CPU."""
    weight = next(denoise.parameters(), None) if isinstance(denoise, nn.Module) else None
    return torch.device("cpu") if weight is None else weight.device


class Barring:
    """A denoiser that never offers `barred`: one id at each of some positions, as a table's missing values.

    The other ids of the position share its mass in their proportions; each must have one at least. `denoise` is any
    that the sampler takes.
    """

    def __init__(self, denoise: Any, barred: Mapping[int, int]) -> None:
        self.denoise, self.barred = denoise, dict(barred)

    def bar(self, logits: Tensor, positions: Tensor) -> Tensor:
        """Token logits [R, V] at `positions` [R] without what is barred."""
        logits = logits.clone()
        for position, token_id in self.barred.items():
            logits[:, token_id].masked_fill_(positions == position, -torch.inf)
        return logits


def cross_entropy(token_logits: Tensor, x: Tensor) -> Tensor:
    """`-log p(x_i | canvas)` in nats at every position, float32: logits [B, L, V] and clean ids [B, L] -> [B, L]."""
    B, L, V = token_logits.shape
    flat = F.cross_entropy(token_logits.float().reshape(B * L, V), x.reshape(B * L), reduction="none")
    return flat.view(B, L)

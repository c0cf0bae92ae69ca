"""Muon for a network's matrices: momentum, made orthogonal. https://kellerjordan.github.io/posts/muon/

An update is the momentum's matrix with all its singular values moved to about one, by five steps of a Newton-Schulz
iteration; matrices of one shape take them together. In bfloat16 where the processor computes in it, in float32
elsewhere: torch's own Muon knows bfloat16 alone, which a processor without it imitates at a tenth of the speed.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

_A, _B, _C = 3.4445, -4.7750, 2.0315  # of the quintic whose iteration takes [0, 1] close to 1 in few steps
_STEPS, _SMALL = 5, 1e-7


class Muon(torch.optim.Optimizer):
    """For matrices [N, M]; a step moves one by its rate, times the root of N / M where that is above one. `momentum` is
    Nesterov's; weights decay by rate times `weight_decay`."""

    def __init__(
        self,
        params: Iterable[Mapping[str, Any]],
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`dtype`: what the iteration computes in."""
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})  # type: ignore[arg-type]
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Moves every matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(tuple(parameter.shape), []).append(parameter)
            for parameters in alike.values():
                self._move(parameters, group)

    def _move(self, parameters: list[nn.Parameter], group: Mapping[str, Any]) -> None:
        """Of one shape."""
        momenta = [self._momentum(parameter, group["momentum"]) for parameter in parameters]
        updates = orthogonal(torch.stack(momenta).to(self._dtype))
        N, M = updates.shape[1:]
        rate = group["lr"] * max(1.0, N / M) ** 0.5
        for parameter, update in zip(parameters, updates.to(parameters[0].dtype), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.sub_(_sharded(update, parameter), alpha=rate)

    def _momentum(self, parameter: nn.Parameter, decay: float) -> Tensor:
        """Whole [N, M], where a strategy shards it too."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum_buffer"]
        momentum.lerp_(gradient, 1 - decay)
        ahead = gradient.lerp(momentum, decay)
        return ahead.full_tensor() if isinstance(ahead, DTensor) else ahead


def orthogonal(x: Tensor) -> Tensor:
    """Matrices [K, N, M] with their singular values moved to about one, signs and directions kept."""
    is_tall = x.shape[1] > x.shape[2]
    x = x.mT if is_tall else x
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + _SMALL)
    for _ in range(_STEPS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if is_tall else x


def _sharded(update: Tensor, parameter: nn.Parameter) -> Tensor:
    """As the parameter is."""
    if not isinstance(parameter, DTensor):
        return update
    return distribute_tensor(update, parameter.device_mesh, parameter.placements)

"""The network in training: the denoiser, the average of its weights, and the running baseline, as one module.

One module, so that every strategy of Fabric moves, shards and saves all of it at once. Knows no data and no schedule.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from model.baseline import RunningBaseline
from model.denoiser import Prediction
from model.transformer import Transformer


class Arm(nn.Module):
    """`forward` gives the prediction and the order's weights, so that both take part in every strategy's gradients."""

    def __init__(self, denoiser: Transformer, *, marginals: Tensor, baseline_window: int) -> None:
        """`marginals` [L or 1, V]: log p(x_i) under the training rows' marginals."""
        super().__init__()
        self.denoiser = denoiser
        self.average = copy.deepcopy(denoiser).requires_grad_(False)
        self.baseline = RunningBaseline(denoiser.architecture.length, window=baseline_window)
        self.register_buffer("marginals", marginals, persistent=False)

    def forward(
        self, tokens: Tensor, hidden: Tensor, lengths: Tensor, *, average: bool = False
    ) -> tuple[Prediction, Tensor]:
        """Tokens, hidden [B, L], lengths [B] -> prediction and log_w [L]; `average` asks the averaged weights."""
        denoiser = self.average if average else self.denoiser
        return denoiser(tokens, hidden, lengths), denoiser.order_head.global_log_w()

    def control(self, x: Tensor) -> Tensor:
        """The control variate of `model.objective.order_form`: -log p(x_i) under the marginals, [B, L]."""
        marginals = self.get_buffer("marginals")
        return -marginals.expand(x.shape[1], -1).gather(1, x.T).T

    def log_w(self, *, average: bool = False) -> Tensor:
        """The order's weights [L] as plain values, in the gauge of mean zero."""
        head = (self.average if average else self.denoiser).order_head
        log_w = whole(head.log_w.detach()).float()
        return log_w - log_w.mean()

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Moves the averaged weights towards the trained ones: average = decay * average + (1 - decay) * trained."""
        pairs = zip(self.average.parameters(), self.denoiser.parameters(), strict=True)
        averaged, trained = zip(*((a, p.detach()) for a, p in pairs), strict=True)
        torch._foreach_lerp_(list(averaged), list(trained), 1.0 - decay)

    def parameter_groups(
        self, *, learning_rate: float, order_rate: float, weight_decay: float
    ) -> list[dict[str, object]]:
        """Matrices decay; embeddings, gains and biases do not; the order has a rate of its own."""
        groups: dict[str, list[nn.Parameter]] = {"matrices": [], "others": [], "order": []}
        for name, parameter in self._trained():
            group = "order" if name == "order_head.log_w" else "matrices" if _is_matrix(name, parameter) else "others"
            groups[group].append(parameter)
        settings = {
            "matrices": {"lr": learning_rate, "weight_decay": weight_decay},
            "others": {"lr": learning_rate, "weight_decay": 0.0},
            "order": {"lr": order_rate, "weight_decay": 0.0},
        }
        return [{"name": g, "params": p, **settings[g], "peak": settings[g]["lr"]} for g, p in groups.items() if p]

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.denoiser.named_parameters() if p.requires_grad)


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that FSDP may have sharded; a collective if it has."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and "embedding" not in name and name != "position"

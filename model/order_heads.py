"""Order heads: log-weights of the next position to reveal, read off the trunk. Know no trunk, no loss, no sampler."""

import torch
from torch import Tensor, nn

from model.manifest import Architecture, ImportedArchitecture, OrderKind, OrderSpec

FIXED_GAP = 64.0  # log-weights this far apart make Plackett-Luce deterministic: float64 Gumbel noise spans 40


class OrderHead(nn.Module):
    """Log-weights of the next position to reveal, in the gauge of mean zero over all positions.

    `uniform` has none, `fixed` has them far apart, `global` learns one a position, `contextual` adds to that what a
    small head reads off the trunk, so that the next position may depend on what is revealed.
    """

    def __init__(self, architecture: Architecture | ImportedArchitecture, order: OrderSpec) -> None:
        super().__init__()
        if order.fixed is not None and len(order.fixed) != architecture.length:
            raise ValueError(f"a fixed order of {len(order.fixed)} positions for a model of {architecture.length}")
        self.kind: OrderKind = order.kind
        log_w = torch.zeros(architecture.length)
        if order.fixed is not None:
            log_w[list(order.fixed)] = -FIXED_GAP * torch.arange(architecture.length).float()
        if order.kind in ("global", "contextual"):
            self.log_w = nn.Parameter(log_w)
        else:
            self.register_buffer("log_w", log_w, persistent=False)
        if order.kind == "contextual":
            D = architecture.width
            self.head = nn.Sequential(nn.RMSNorm(D, eps=1e-5), nn.Linear(D, D), nn.GELU(), nn.Linear(D, 1))

    def global_log_w(self) -> Tensor:
        """[L] float32 with mean zero: the context-free part of the law, all of it unless the kind is contextual."""
        return self.log_w - self.log_w.mean()

    def forward(self, x: Tensor) -> Tensor:
        """Trunk states [B, L, D] -> log-weights [B, L]."""
        log_w = self.global_log_w()[: x.shape[1]].expand(x.shape[:2])
        if self.kind != "contextual":
            return log_w
        return log_w + self.head(x).squeeze(-1).float()  # type: ignore[no-any-return]

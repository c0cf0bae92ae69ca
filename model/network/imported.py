"""Masked LMs trained elsewhere as denoisers: a network of the `transformers` library between Unveil's interfaces.

The library builds the network from its configuration, with no code and no pickle out of any folder. Around it: the
mask's id stands where a canvas is hidden, the model's own marks ([CLS], [SEP]) before and after it, its token head is
asked at the canvas's positions alone, and an order head of Unveil's own reads the states that the token head reads.

Shapes depend on nothing but the batch's own: the marks are part of every row, the attention mask is always given (the
library would leave it out where no row of a batch is padded, and take another kernel). The token head is asked where
its answer is needed, in shapes that the service fixes too. So its check holds for these networks as for its own.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from unveil.model.denoiser import Begun, Prediction
from unveil.model.errors import ArtifactError
from unveil.model.network.architecture import Family, ImportedArchitecture, OrderSpec
from unveil.model.network.base import Network
from unveil.model.network.order_heads import NextCostHead, Reading, make_order_head

INSTALL = "pip install 'unveil[transformers]'"


@dataclass(frozen=True)
class Parts:
    """Where a family keeps what is needed of it; `config` and `network` name classes of the library."""

    config: str
    network: str
    head: Callable[[Any, Tensor], Tensor]
    blocks: Callable[[Any], nn.ModuleList]


PARTS: dict[Family, Parts] = {
    "bert": Parts("BertConfig", "BertForMaskedLM", lambda net, x: net.cls(x), lambda net: net.bert.encoder.layer),
    "roberta": Parts(
        "RobertaConfig", "RobertaForMaskedLM", lambda net, x: net.lm_head(x), lambda net: net.roberta.encoder.layer
    ),
    "albert": Parts(
        "AlbertConfig",
        "AlbertForMaskedLM",
        lambda net, x: net.predictions(x),
        lambda net: net.albert.encoder.albert_layer_groups,
    ),
    "modernbert": Parts(
        "ModernBertConfig",
        "ModernBertForMaskedLM",
        lambda net, x: net.decoder(net.head(x)),
        lambda net: net.model.layers,
    ),
    # LLaDA is Llama and Dream is Qwen2, both looking in both directions.
    "llada": Parts("LlamaConfig", "LlamaForCausalLM", lambda net, x: net.lm_head(x), lambda net: net.model.layers),
    "dream": Parts("Qwen2Config", "Qwen2ForCausalLM", lambda net, x: net.lm_head(x), lambda net: net.model.layers),
}


def library() -> Any:
    """The `transformers` library. Raises ArtifactError, saying how to install it, where it is missing."""
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise ArtifactError(f"an imported model needs the package transformers: {INSTALL}") from None


def library_config(family: Family, fields: dict[str, Any]) -> Any:
    """The library's configuration object, set to attention that takes any mask. ArtifactError for fields that it
    refuses."""
    try:
        config = getattr(library(), PARTS[family].config).from_dict(fields)
    except ArtifactError:
        raise
    except Exception as error:  # whatever the library raises: the fields come from a file
        raise ArtifactError(f"architecture.config: {' '.join(str(error).split())[:200]}") from None
    config._attn_implementation = "sdpa"
    return config


class Imported(Network):
    """A denoiser in the sense of `model.denoiser.Denoiser`. `net` is the library's, with its weights and names."""

    def __init__(self, architecture: ImportedArchitecture, order: OrderSpec) -> None:
        super().__init__()
        self.architecture: ImportedArchitecture = architecture
        self.order = order
        self._parts = PARTS[architecture.family]
        config = library_config(architecture.family, architecture.config)
        self.net = getattr(library(), self._parts.network)(config)
        self.order_head = make_order_head(architecture, order)
        absent = torch.zeros(architecture.vocabulary_sizes[0], dtype=torch.bool)
        absent[list(architecture.absent)] = True
        self.register_buffer("absent", absent, persistent=False)  # [V]

    @property
    def blocks(self) -> nn.ModuleList:  # type: ignore[override]
        return self._parts.blocks(self.net)

    def forward(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        """See `model.denoiser.Denoiser`. One trunk pass feeds both heads."""
        return self._predict(self.read(tokens, hidden, lengths))

    def read(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Reading:
        """See `Network.read`."""
        x = self._read(tokens, hidden, lengths)
        return Reading(x, self._logits(x), tokens, hidden, lengths)

    def begin(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Begun:
        """See `model.denoiser.Stages`: the token head is left for later, unless the order reads it."""
        x = self._read(tokens, hidden, lengths)
        if isinstance(self.order_head, NextCostHead):
            logits = self._logits(x)
            return Begun(self.order_head(Reading(x, logits, tokens, hidden, lengths)), logits)
        return Begun(self.order_head(Reading(x, None, tokens, hidden, lengths)), x)

    def finish(self, states: Tensor, positions: Tensor) -> Tensor:  # noqa: ARG002
        """See `model.denoiser.Stages`."""
        return states if isinstance(self.order_head, NextCostHead) else self._logits(states)

    def rounded(self, num: int) -> int:
        """See `model.denoiser.Stages`."""
        return num

    def _read(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Tensor:
        """The states [B, L, D] that the token head is to read at each position."""
        L, start = tokens.shape[1], len(self.architecture.before)
        states = self._states(*self._framed(tokens, hidden, lengths))  # [B, P + L + S, D]
        if self.architecture.is_shifted:
            states = torch.cat([states[:, :1], states[:, :-1]], 1)
        return states[:, start : start + L]

    def _logits(self, x: Tensor) -> Tensor:
        """[..., D] -> float32 [..., V]."""
        logits = self._parts.head(self.net, x)[..., : len(self.get_buffer("absent"))].float()
        return logits.masked_fill(self.get_buffer("absent"), -torch.inf)

    def _framed(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The ids that the library is shown [B, P + L + S], marks before and after each canvas, and which are seen."""
        a, (B, L), device = self.architecture, tokens.shape, tokens.device
        before, after = (torch.tensor(ids, dtype=torch.int64, device=device) for ids in (a.before, a.after))
        padding = torch.arange(L, device=device) >= lengths[:, None]
        canvas = tokens.masked_fill(hidden, a.mask_id).masked_fill(padding, a.pad_id)
        ids = torch.cat([before.expand(B, -1), canvas, torch.full((B, len(a.after)), a.pad_id, device=device)], 1)
        ends = len(a.before) + lengths[:, None] + torch.arange(len(a.after), device=device)  # [B, S]
        ids = ids.scatter(1, ends, after.expand(B, -1))
        return ids, torch.arange(ids.shape[1], device=device) < (ends.shape[1] + len(a.before) + lengths)[:, None]

    def _states(self, ids: Tensor, seen: Tensor) -> Tensor:
        """The trunk's last states [B, T, D]. Padding is never attended to."""
        mask: Any = seen[:, None, None]  # [B, 1, 1, T]
        if self.architecture.family == "modernbert":
            places = torch.arange(ids.shape[1], device=ids.device)
            near = (places[:, None] - places).abs() <= self.net.config.sliding_window
            mask = {"full_attention": mask, "sliding_attention": mask & near}
        states = self.net.base_model(input_ids=ids, attention_mask=mask, **self._options).last_hidden_state
        return cast(Tensor, states)

    @property
    def _options(self) -> dict[str, bool]:
        return {"use_cache": False} if self.architecture.family in ("llada", "dream") else {}

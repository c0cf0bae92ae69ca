"""What a family calls things, in the words of the `transformers` library: configuration fields and tensor names.

Most families are the library's own and change nothing. LLaDA and Dream bring Python of their own, which is not run:
LLaDA's network is Llama's and Dream's is Qwen2's, each looking in both directions, under other names.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from unveil.model.errors import ArtifactError
from unveil.model.network.architecture import Family

Fields = dict[str, Any]
# Of no use to the network, or not the same for two readers of one folder.
_NOISE = ("_name_or_path", "architectures", "auto_map", "dtype", "id2label", "label2id", "torch_dtype")
_VERSION = "transformers_version"

# What LLaDA's configuration may say besides; anything else is another network.
_LLADA_ONLY: Fields = {
    "block_type": "llama",
    "layer_norm_type": "rms",
    "activation_type": "silu",
    "rope": True,
    "alibi": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "attention_layer_norm": False,
    "input_emb_norm": False,
    "scale_logits": False,
}
_LLADA_NAMES = (
    (r"^model\.transformer\.wte\.", "model.embed_tokens."),
    (r"^model\.transformer\.ln_f\.", "model.norm."),
    (r"^model\.transformer\.ff_out\.", "lm_head."),
    (r"^model\.transformer\.blocks\.(\d+)\.(q|k|v)_proj\.", r"model.layers.\1.self_attn.\2_proj."),
    (r"^model\.transformer\.blocks\.(\d+)\.attn_out\.", r"model.layers.\1.self_attn.o_proj."),
    (r"^model\.transformer\.blocks\.(\d+)\.attn_norm\.", r"model.layers.\1.input_layernorm."),
    (r"^model\.transformer\.blocks\.(\d+)\.ff_norm\.", r"model.layers.\1.post_attention_layernorm."),
    (r"^model\.transformer\.blocks\.(\d+)\.ff_proj\.", r"model.layers.\1.mlp.gate_proj."),
    (r"^model\.transformer\.blocks\.(\d+)\.up_proj\.", r"model.layers.\1.mlp.up_proj."),
    (r"^model\.transformer\.blocks\.(\d+)\.ff_out\.", r"model.layers.\1.mlp.down_proj."),
)


def config_fields(family: Family, config: Mapping[str, Any], place: Path) -> Fields:
    """The library's fields of this network. Raises ArtifactError naming one that is missing or not known here."""
    return _FIELDS.get(family, _as_it_is)(config, place)


def library_names(family: Family, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the library's names."""
    if family != "llada":
        return dict(weights)
    return {_llada_name(name): tensor for name, tensor in weights.items()}


def most_positions(family: Family, fields: Mapping[str, Any]) -> int:
    """How many ids the network takes at once, marks included."""
    most = int(fields["max_position_embeddings"])
    # RoBERTa counts positions from behind the padding's id.
    return most - int(fields["pad_token_id"]) - 1 if family == "roberta" else most


def settled(config: Any) -> Fields:
    """All of a library's configuration object that its network follows from, as JSON."""
    return {name: value for name, value in config.to_dict().items() if name not in (*_NOISE, _VERSION)}


def _as_it_is(config: Mapping[str, Any], place: Path) -> Fields:  # noqa: ARG001
    return {name: value for name, value in config.items() if name not in _NOISE}


def _llada(config: Mapping[str, Any], place: Path) -> Fields:
    for name, wanted in _LLADA_ONLY.items():
        if config.get(name, wanted) != wanted:
            raise ArtifactError(f"{place}: {name}: {config[name]!r}; only {wanted!r} can be imported")
    try:
        heads, width = int(config["n_heads"]), int(config["d_model"])
        return {
            "model_type": "llama",
            "vocab_size": int(config.get("embedding_size") or config["vocab_size"]),
            "hidden_size": width,
            "intermediate_size": int(config.get("mlp_hidden_size") or config["mlp_ratio"] * width),
            "num_hidden_layers": int(config["n_layers"]),
            "num_attention_heads": heads,
            "num_key_value_heads": int(config.get("n_kv_heads") or heads),
            "max_position_embeddings": int(config["max_sequence_length"]),
            "rms_norm_eps": float(config.get("rms_norm_eps", 1e-5)),
            "rope_parameters": {"rope_type": "default", "rope_theta": float(config.get("rope_theta", 10_000.0))},
            "tie_word_embeddings": bool(config.get("weight_tying", False)),
            "pad_token_id": config.get("pad_token_id"),
        }
    except KeyError as error:
        raise ArtifactError(f"{place}: {error.args[0]}: missing") from None


def _dream(config: Mapping[str, Any], place: Path) -> Fields:
    return {**_as_it_is(config, place), "model_type": "qwen2"}


_FIELDS: dict[Family, Callable[[Mapping[str, Any], Path], Fields]] = {"llada": _llada, "dream": _dream}


def _llada_name(name: str) -> str:
    for pattern, replacement in _LLADA_NAMES:
        name = re.sub(pattern, replacement, name)
    return name

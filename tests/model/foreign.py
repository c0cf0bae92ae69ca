"""Small models of other makers with random weights, saved as their makers save them, for tests that import one."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from unveil.model.network.architecture import Family

FAMILIES: tuple[Family, ...] = ("bert", "roberta", "albert", "modernbert", "llada", "dream")
WORDS = [*"abcdefgh", "the", "cat", "sat", "on", "mat", "##s", "##ing", "."]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TOKENS = [*SPECIAL, *WORDS]
POSITIONS, WIDTH = 40, 32
_COMMON: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": len(TOKENS) + 3,
    "pad_token_id": 0,
    "max_position_embeddings": POSITIONS,
}


def word_tokenizer(*, marks: bool) -> Tokenizer:
    """WordPiece as BERT has it."""
    library = Tokenizer(models.WordPiece({t: i for i, t in enumerate(TOKENS)}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece(cleanup=False)
    library.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    if marks:
        ids = [(token, TOKENS.index(token)) for token in ("[CLS]", "[SEP]")]
        library.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return library


def smiles_vocabulary() -> list[str]:
    return [*SPECIAL, *"cCNO()=1", "Cl", "[nH]"]


def character_tokenizer() -> Tokenizer:
    """One token a character, no marks, no unknown token needed."""
    library = Tokenizer(models.WordLevel({t: i for i, t in enumerate(TOKENS)}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    library.decoder = decoders.Fuse()
    library.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    return library


def make_network(family: Family, *, seed: int = 0) -> Any:
    """The library's network with weights large enough to tell positions and ids apart."""
    torch.manual_seed(seed)
    network = _NETWORKS[family]()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def write_folder(folder: Path, family: Family, *, seed: int = 0, **config: Any) -> Any:
    """Saves a model of the family and gives its network. `config` changes fields of config.json, None takes one out."""
    network = make_network(family, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    fields = _LAYOUTS.get(family, _as_the_library)(network)
    fields = {name: value for name, value in {**fields, **config}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(fields))
    weights = {_named(family, name): tensor.clone() for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer = character_tokenizer() if family in ("llada", "dream") else word_tokenizer(marks=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"mask_token": "[MASK]", "unk_token": "[UNK]"}))
    return network


def logits_of(network: Any, family: Family, ids: list[int]) -> torch.Tensor:
    """What the library itself says of these ids, marks included: [T, V]. Dream's are moved as its makers move them."""
    given = torch.tensor([ids])
    if family in ("llada", "dream"):  # the library's own classes look to the left unless told to look everywhere
        everywhere = torch.ones(1, 1, len(ids), len(ids), dtype=torch.bool)
        logits = network(given, attention_mask=everywhere).logits[0]
        return torch.cat([logits[:1], logits[:-1]]) if family == "dream" else logits
    return network(given, attention_mask=torch.ones_like(given)).logits[0]  # type: ignore[no-any-return]


def _bert() -> Any:
    return transformers.BertForMaskedLM(transformers.BertConfig(**_COMMON))


def _roberta() -> Any:
    fields: dict[str, Any] = {**_COMMON, "pad_token_id": 0, "type_vocab_size": 1}
    return transformers.RobertaForMaskedLM(transformers.RobertaConfig(**fields))


def _albert() -> Any:
    return transformers.AlbertForMaskedLM(transformers.AlbertConfig(**_COMMON, embedding_size=16))


def _modernbert() -> Any:
    marks = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    local = {"num_hidden_layers": 3, "local_attention": 6, "global_attn_every_n_layers": 3}
    fields: dict[str, Any] = {**_COMMON, **marks, **local}
    return transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**fields))


def _llama() -> Any:
    fields: dict[str, Any] = {**_COMMON, "num_key_value_heads": 2, "eos_token_id": 3, "bos_token_id": None}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**fields))


def _qwen2() -> Any:
    fields: dict[str, Any] = {**_COMMON, "num_key_value_heads": 2, "eos_token_id": 3, "bos_token_id": None}
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**fields))


_NETWORKS: dict[Family, Callable[[], Any]] = {
    "bert": _bert,
    "roberta": _roberta,
    "albert": _albert,
    "modernbert": _modernbert,
    "llada": _llama,
    "dream": _qwen2,
}


def _as_the_library(network: Any) -> dict[str, Any]:
    return {**network.config.to_dict(), "architectures": [type(network).__name__]}


def _llada(network: Any) -> dict[str, Any]:
    """`config.json` as LLaDA's makers write it."""
    own = network.config
    return {
        "model_type": "llada",
        "architectures": ["LLaDAModelLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_llada.LLaDAModelLM"},
        "d_model": own.hidden_size,
        "mlp_hidden_size": own.intermediate_size,
        "n_layers": own.num_hidden_layers,
        "n_heads": own.num_attention_heads,
        "n_kv_heads": own.num_key_value_heads,
        "max_sequence_length": own.max_position_embeddings,
        "vocab_size": own.vocab_size - 1,
        "embedding_size": own.vocab_size,
        "rms_norm_eps": own.rms_norm_eps,
        "rope_theta": own.rope_parameters["rope_theta"],
        "block_type": "llama",
        "layer_norm_type": "rms",
        "activation_type": "silu",
        "rope": True,
        "alibi": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "weight_tying": False,
        "mask_token_id": TOKENS.index("[MASK]"),
        "pad_token_id": 0,
        "eos_token_id": 3,
    }


def _dream(network: Any) -> dict[str, Any]:
    fields = {**network.config.to_dict(), "model_type": "Dream", "architectures": ["DreamModel"]}
    return {**fields, "auto_map": {"AutoModel": "modeling_dream.DreamModel"}, "mask_token_id": TOKENS.index("[MASK]")}


_LAYOUTS: dict[Family, Callable[[Any], dict[str, Any]]] = {"llada": _llada, "dream": _dream}
_LLADA_NAMES = {
    "model.embed_tokens.": "model.transformer.wte.",
    "model.norm.": "model.transformer.ln_f.",
    "lm_head.": "model.transformer.ff_out.",
    "self_attn.o_proj.": "attn_out.",
    "self_attn.": "",
    "input_layernorm.": "attn_norm.",
    "post_attention_layernorm.": "ff_norm.",
    "mlp.gate_proj.": "ff_proj.",
    "mlp.up_proj.": "up_proj.",
    "mlp.down_proj.": "ff_out.",
}


def _named(family: Family, name: str) -> str:
    """The library's name of a tensor -> its makers'."""
    if family != "llada":
        return name
    name = re.sub(r"^model\.layers\.", "model.transformer.blocks.", name)
    for own, theirs in _LLADA_NAMES.items():
        if own in name:
            return name.replace(own, theirs)
    return name

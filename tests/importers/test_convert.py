"""What can be imported and what cannot, each refusal in one line that names what is wrong."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tokenizers import Tokenizer

from tests.model.foreign import POSITIONS, SPECIAL, logits_of, make_network, smiles_vocabulary, write_folder
from unveil.benchmarks.domains.problems.rxnmapper import rxnmapper
from unveil.commands.training import cache_folder
from unveil.importers.convert import Wishes, convert, import_folder
from unveil.importers.layouts import library_names
from unveil.model.artifact.folder import load_artifact
from unveil.model.errors import ArtifactError, UnveilError

Damage = Callable[[Path], None]


def _fields(**changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def _without(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def _written(name: str, text: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).write_text(text)

    return damage


def _no_mask(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{}")


def _no_head(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("cls.")}
    safetensors.torch.save_file(kept, folder / "model.safetensors")


def _other_width(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["bert.encoder.layer.0.output.dense.weight"] = torch.zeros(3, 3)
    safetensors.torch.save_file(weights, folder / "model.safetensors")


class _Opens:
    """What would run if it were read as any pickle is."""

    def __reduce__(self) -> tuple[object, ...]:
        return open, ("/dev/null",)


_BIN = "pytorch_model.bin"


def _bin(value: object, *, is_old: bool = False, kept: int | None = None) -> Damage:
    """Weights as torch keeps them, or did before 1.6; of which so many bytes are there, or all but so many."""

    def damage(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save(value, folder / _BIN, _use_new_zipfile_serialization=not is_old)
        (folder / _BIN).write_bytes((folder / _BIN).read_bytes()[:kept])

    return damage


def _bin_of_bytes(content: bytes) -> Damage:
    def damage(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / _BIN).write_bytes(content)

    return damage


_TENSORS, _OBJECTS = {"a": torch.ones(300)}, {"weights": [torch.nn.Linear(2, 2)]}
_DAMAGED = r"pytorch_model\.bin: damaged or truncated"
_MORE = r"a pickle that holds more than tensors, so it is not read; .* save_pretrained"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without("config.json"), r"config\.json: missing, so this folder is no Hugging Face model"),
        (_written("config.json", "{"), r"config\.json: not readable as JSON"),
        (_fields(architectures=["GPT2LMHeadModel"], model_type="gpt2"), "GPT2LMHeadModel is a causal language model"),
        (_fields(architectures=["BertLMHeadModel"], is_decoder=True), "BertLMHeadModel is a causal language model"),
        (_fields(is_decoder=True, architectures=None), "a decoder is a causal language model"),
        (_fields(model_type="t5", architectures=["T5Model"]), 'model_type: "t5"; bert, roberta, albert, .* imported'),
        (_fields(model_type=None), "model_type: .* can be imported"),
        (_no_mask, "has no mask token, neither mask_token_id in config.json nor the tokenizer's"),
        (_no_head, r"not those of a BertForMaskedLM: cls\..* missing or of another shape"),
        (
            _other_width,
            r"BertForMaskedLM: bert\.encoder\.layer\.0\.output\.dense\.weight is missing or of another shape",
        ),
        (_without("model.safetensors"), r"no model\.safetensors; .* save_pretrained it"),
        (_written("model.safetensors", "torn"), "not readable as safetensors"),
        (_bin(_OBJECTS), _MORE),
        (_bin(_OBJECTS, is_old=True), _MORE),
        (_bin({"a": 1}), _MORE),
        (_bin([torch.ones(2)]), _MORE),
        (_bin_of_bytes(pickle.dumps(_Opens(), protocol=2)), _MORE),
        (_bin_of_bytes(pickle.dumps(_Opens())), _MORE),
        (_bin(_TENSORS, kept=-200), _DAMAGED),
        (_bin(_TENSORS, kept=300), _DAMAGED),
        (_bin(_TENSORS, is_old=True, kept=-5), _DAMAGED),
        (_bin(_TENSORS, is_old=True, kept=80), _DAMAGED),
        (_bin(_OBJECTS, is_old=True, kept=80), _DAMAGED),
        (_bin_of_bytes(pickle.dumps(_Opens(), protocol=2)[:-4]), _DAMAGED),
        (_bin_of_bytes(b""), _DAMAGED),
        (_bin_of_bytes(b"<html>not found</html>"), _DAMAGED),
        (_bin_of_bytes(b"version https://git-lfs.github.com/spec/v1\n"), _DAMAGED),
        (_without("tokenizer.json"), r"tokenizer\.json: missing; .* --tokenizer smiles"),
        (_written("tokenizer.json", "{}"), r"tokenizer\.json: not a tokenizer"),
        (_fields(vocab_size=5), "the tokenizer has 21 ids, the network 5"),
        (_fields(hidden_size="wide"), "hidden_size|architecture.config"),
    ],
)
def test_what_cannot_be_imported_is_refused_in_one_line(damage: Damage, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    write_folder(folder, "bert")
    damage(folder)
    with pytest.raises(ArtifactError, match=message) as refused:
        convert(folder, Wishes())
    assert "\n" not in str(refused.value)


def test_a_folder_that_is_not_there_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such folder; a model of the hub is taken with --hub"):
        convert(tmp_path / "bert-base-uncased", Wishes())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("block_type", "sequential", "block_type: 'sequential'; only 'llama' can be imported"),
        ("include_qkv_bias", True, "include_qkv_bias: True; only False"),
        ("d_model", None, "d_model: missing"),
    ],
)
def test_another_llada_is_refused_by_the_field(field: str, value: Any, message: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "llada", "llada", **{field: value})
    with pytest.raises(ArtifactError, match=message):
        convert(tmp_path / "llada", Wishes())


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (Wishes(length=POSITIONS), f"--length: must be between 1 and {POSITIONS - 2}, got {POSITIONS}"),
        (Wishes(length=4, default_length=5), "--default-length: must be between 1 and 4, the length, got 5"),
    ],
)
def test_lengths_that_do_not_fit_are_refused_by_the_option(wishes: Wishes, message: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "bert", "bert")
    with pytest.raises(ArtifactError, match=message):
        convert(tmp_path / "bert", wishes)


def test_an_old_pickle_of_tensors_is_read_and_the_artifact_and_its_card_say_where_from(tmp_path: Path) -> None:
    folder, out = tmp_path / "old", tmp_path / "artifact"
    network = write_folder(folder, "bert")
    torch.save({**network.state_dict(), "bert.pooler.dense.bias": torch.zeros(32)}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (folder / "README.md").write_text("---\ntags: [x]\nlicense: apache-2.0\n---\n# A model\n")
    manifest, _ = import_folder(folder, out, Wishes())
    came_from = manifest.training["imported"]
    assert came_from["was_pickle"]
    assert came_from["tensors_left_out"] == ["bert.pooler.dense.bias"]
    assert came_from["license"] == "apache-2.0"
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    card = (out / "README.md").read_text()
    assert came_from["files"]["pytorch_model.bin"] in card
    assert "apache-2.0" in card
    assert convert(folder, Wishes(license="MIT")).provenance["license"] == "MIT"


def test_weights_in_parts_are_put_together(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    write_folder(folder, "roberta")
    whole = convert(folder, Wishes()).denoiser.state_dict()
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for part, own in parts.items():
        safetensors.torch.save_file({name: weights[name] for name in own}, folder / part)
    index = {"weight_map": {name: part for part, own in parts.items() for name in own}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    found = convert(folder, Wishes())
    assert all(torch.equal(tensor, whole[name]) for name, tensor in found.denoiser.state_dict().items())
    assert set(found.provenance["files"]) == {"a.safetensors", "b.safetensors"}
    (folder / "b.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"b\.safetensors: not readable as safetensors"):
        convert(folder, Wishes())


def test_a_vocabulary_file_alone_makes_berts_tokenizer(tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    write_folder(folder, "bert")
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(tokens, key=tokens.__getitem__)) + "\n")
    (folder / "tokenizer.json").unlink()
    tokenizer = convert(folder, Wishes()).tokenizer
    assert tokenizer.line_ids("the cats.") == [tokens[piece] for piece in ("the", "cat", "##s", ".")]


def test_a_vocabulary_of_smiles_is_split_as_chemists_do(tmp_path: Path) -> None:
    folder = tmp_path / "albert"
    write_folder(folder, "albert")
    tokens = smiles_vocabulary()
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    (folder / "special_tokens_map.json").write_text(
        json.dumps({f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")})
    )
    converted = convert(folder, Wishes(tokenizer="smiles"))
    assert converted.denoiser.architecture.before == (SPECIAL.index("[CLS]"),)
    assert converted.tokenizer.line_ids("Clc1[nH]c1") == [
        tokens.index(piece) for piece in ("Cl", "c", "1", "[nH]", "c", "1")
    ]
    template = converted.tokenizer.encode("CC[MASK:2]Cl")
    assert template.hidden == (False, False, True, True, False)
    (folder / "special_tokens_map.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ArtifactError, match="has no unknown token"):
        convert(folder, Wishes(tokenizer="smiles"))


def test_lladas_names_all_have_a_place_in_llama() -> None:
    names = make_network("llada").state_dict()
    assert set(library_names("llada", names)) == set(names)  # the library's own stay what they are


def test_rxnmappers_albert_says_what_the_library_says_of_it(tmp_path: Path) -> None:
    try:
        folder = rxnmapper(cache_folder())
    except UnveilError as error:
        pytest.skip(f"rxnmapper cannot be had here: {error}")
    import transformers

    import_folder(folder, tmp_path / "artifact", Wishes(tokenizer="smiles", length=64))
    artifact = load_artifact(tmp_path / "artifact")
    net: Any = transformers.AlbertForMaskedLM(transformers.AlbertConfig.from_pretrained(folder))
    net.eval()
    state = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    net.load_state_dict(state, strict=False)
    template = artifact.tokenizer.encode("CC(=O)Oc1cc[MASK:3]c1C(=O)[MASK]")
    ids = [14 if h else t for t, h in zip(template.tokens, template.hidden, strict=True)]
    lengths = torch.tensor([len(ids)])
    with torch.no_grad():
        expected = logits_of(net, "albert", [12, *ids, 13])[1:-1]
        logits = artifact.denoiser(torch.tensor([template.tokens]), torch.tensor([template.hidden]), lengths)[0][0]
    offered = torch.isfinite(logits)
    assert (~offered).sum() == len(ids) * 5  # the special tokens
    torch.testing.assert_close(logits[offered], expected[offered], atol=1e-4, rtol=0)
    assert artifact.manifest.num_parameters == 735_567

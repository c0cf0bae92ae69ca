"""Artifacts survive the round trip, and every damage gets one clear line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model.artifacts import random_transformer, table_tokenizer, text_tokenizer, write_artifact
from unveil.model.artifact.folder import load_artifact
from unveil.model.artifact.manifest import CONFIG, TOKENIZER, WEIGHTS, read_manifest
from unveil.model.errors import ArtifactError
from unveil.model.tokenizers.base import Tokenizer


@pytest.mark.parametrize("tokenizer", [table_tokenizer(), text_tokenizer()], ids=["table", "text"])
def test_what_was_saved_is_what_is_loaded(tmp_path: Path, tokenizer: Tokenizer) -> None:
    manifest = write_artifact(tmp_path / "a", tokenizer=tokenizer, kind="contextual")
    loaded = load_artifact(tmp_path / "a")
    assert loaded.manifest == manifest
    assert loaded.tokenizer.describe() == tokenizer.describe()
    original = random_transformer(tokenizer, kind="contextual")
    for name, tensor in original.state_dict().items():
        assert torch.equal(loaded.denoiser.state_dict()[name], tensor), name
    assert not loaded.denoiser.training
    assert (tmp_path / "a" / "README.md").read_text() == "# A test model\n"


def test_no_file_of_an_artifact_is_a_pickle_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "README.md",
        CONFIG,
        WEIGHTS,
        TOKENIZER,
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_new_artifact_replaces_the_old_one_whole(tmp_path: Path) -> None:
    first = write_artifact(tmp_path / "a", seed=0)
    second = write_artifact(tmp_path / "a", seed=1)
    assert first.weights_sha256 != second.weights_sha256
    assert load_artifact(tmp_path / "a").manifest == second
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_crash_while_writing_leaves_the_old_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_artifact(tmp_path / "a")

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_artifact(tmp_path / "a", seed=1)
    assert load_artifact(tmp_path / "a").manifest == first
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("precious")
    with pytest.raises(ArtifactError, match="holds something that is not an artifact"):
        write_artifact(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "precious"


@pytest.mark.parametrize("config", ['{"model_type": "bert"}', "{"])
def test_a_folder_of_another_model_is_never_replaced(tmp_path: Path, config: str) -> None:
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / CONFIG).write_text(config)
    (tmp_path / "bert" / "pytorch_model.bin").write_text("precious")
    with pytest.raises(ArtifactError, match="holds something that is not an artifact"):
        write_artifact(tmp_path / "bert")
    assert (tmp_path / "bert" / "pytorch_model.bin").read_text() == "precious"


def test_an_artifact_beside_which_something_else_was_put_is_never_replaced(tmp_path: Path) -> None:
    first = write_artifact(tmp_path / "a")
    (tmp_path / "a" / "notes.txt").write_text("precious")
    with pytest.raises(ArtifactError, match=r"holds notes\.txt, which is no part of an artifact"):
        write_artifact(tmp_path / "a", seed=1)
    assert (tmp_path / "a" / "notes.txt").read_text() == "precious"
    assert load_artifact(tmp_path / "a").manifest == first


def test_a_file_is_no_place_for_an_artifact(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("precious")
    with pytest.raises(ArtifactError, match="is a file; an artifact is a folder"):
        write_artifact(tmp_path / "a")


def test_an_artifact_may_be_written_to_an_empty_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    written = write_artifact(Path("."))
    assert load_artifact(tmp_path / "here").manifest == written


def _config(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        fields = json.loads((folder / CONFIG).read_text())
        for key, value in changes.items():
            target = fields
            *parents, last = key.split("__")
            for parent in parents:
                target = target[parent]
            if value is None:
                del target[last]
            else:
                target[last] = value
        (folder / CONFIG).write_text(json.dumps(fields))

    return change


def _truncate(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-7])


def _flip(name: str) -> Callable[[Path], object]:
    def flip(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(bytes(content))

    return flip


def _remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("weights truncated", _truncate(WEIGHTS), "truncated or altered"),
    ("weights flipped", _flip(WEIGHTS), "truncated or altered"),
    ("weights missing", _remove(WEIGHTS), r"model.safetensors: cannot be read \(No such file"),
    ("tokenizer truncated", _truncate(TOKENIZER), "truncated or altered"),
    ("tokenizer missing", _remove(TOKENIZER), "tokenizer.json: cannot be read"),
    ("config missing", _remove(CONFIG), "config.json: missing, so this folder is no artifact"),
    ("config truncated", _truncate(CONFIG), "config.json: not readable as JSON"),
    (
        "config not UTF-8",
        lambda f: (f / CONFIG).write_bytes(b"\xff\xfe{}"),
        "config.json: not readable as JSON",
    ),
    ("config a list", lambda f: (f / CONFIG).write_text("[]"), "format_version is missing"),
    ("newer format", _config(format_version=2), "format_version 2 is newer than 1"),
    ("older format", _config(format_version=0), "format_version: Input should be 1"),
    ("unknown key", _config(colour="red"), "colour: Extra inputs"),
    ("no weights hash", _config(files={}), "the sha256 of model.safetensors is missing"),
    ("another width", _config(architecture__width=64), "does not hold the network of config.json"),
    ("another length", _config(architecture__length=6), "vocabulary_sizes|columns"),
    ("another order", _config(order={"kind": "contextual"}), "does not hold the network of config.json"),
    ("unknown domain", _config(domain="opera"), "domain: Input should be"),
    *(
        (
            f"attends {old}",
            _config(architecture__attends=old),
            f'attends "{old}" was trained as two streams, by another',
        )
        for old in ("earlier", "visible")
    ),
    ("no architecture", _config(architecture=None), "architecture: Field required"),
]


@pytest.mark.parametrize(("damage", "line"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES])
def test_every_damage_gets_one_line(tmp_path: Path, damage: Callable[[Path], object], line: str) -> None:
    write_artifact(tmp_path / "a")
    damage(tmp_path / "a")
    with pytest.raises(ArtifactError, match=line) as caught:
        load_artifact(tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "a") in str(caught.value) or "tokenizer.json" in str(caught.value)


def test_a_config_that_says_that_all_positions_are_read_is_loaded_as_before(tmp_path: Path) -> None:
    written = write_artifact(tmp_path / "a")
    _config(architecture__attends="all", architecture__query_layers=None)(tmp_path / "a")
    assert load_artifact(tmp_path / "a").manifest == written


def test_a_missing_folder_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such artifact folder"):
        read_manifest(tmp_path / "nowhere")

"""Artifacts are served under their names, bundled ones in alphabetical order, and damage is told in one line."""

from pathlib import Path

import pytest

from tests.model.artifacts import text_tokenizer, write_artifact
from tests.service.mocks import toy_catalog, toy_model
from unveil.engine.catalog import Source, find_sources, load_catalog
from unveil.engine.request.errors import ServiceError
from unveil.model.errors import ArtifactError


def test_the_bundled_ones_are_served_in_alphabetical_order_if_none_is_named(tmp_path: Path) -> None:
    for name in ("shoppers", "adult"):
        write_artifact(tmp_path / name)
    (tmp_path / "notes").mkdir()
    write_artifact(tmp_path / ".adult.old")  # a leftover of a writer that was killed
    sources = find_sources((), checkpoints=tmp_path)
    assert sources == (Source("adult", tmp_path / "adult"), Source("shoppers", tmp_path / "shoppers"))


def test_named_ones_keep_their_order_and_may_be_given_another_name(tmp_path: Path) -> None:
    named = (f"{tmp_path}/b/", f"new={tmp_path}/a", str(tmp_path / "c=d"))
    assert [(s.name, s.folder) for s in find_sources(named, checkpoints=tmp_path)] == [
        ("b", tmp_path / "b"),
        ("new", tmp_path / "a"),
        ("c=d", tmp_path / "c=d"),
    ]


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match='two artifacts would be served as "a"'):
        find_sources(("x/a", "y/a"), checkpoints=tmp_path)


def test_nothing_to_serve_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no artifact to serve"):
        find_sources((), checkpoints=tmp_path)


def test_a_catalog_reads_tables_and_texts_without_their_weights(tmp_path: Path) -> None:
    write_artifact(tmp_path / "rows")
    write_artifact(tmp_path / "words", tokenizer=text_tokenizer())
    (tmp_path / "rows" / "model.safetensors").write_bytes(b"")
    catalog = load_catalog(find_sources((), checkpoints=tmp_path))
    assert [model.name for model in catalog] == ["rows", "words"]
    assert catalog.get(None).name == "rows"
    assert catalog.get("words").describe(is_deterministic=True)["vocabulary_size"] > 0


@pytest.mark.parametrize("damage", ["tokenizer.json", "config.json"])
def test_damage_is_one_line(tmp_path: Path, damage: str) -> None:
    write_artifact(tmp_path / "a")
    path = tmp_path / "a" / damage
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ArtifactError) as error:
        load_catalog([Source("a", tmp_path / "a")])
    assert "\n" not in str(error.value)


def test_an_unknown_model_is_told_what_is_close() -> None:
    catalog = toy_catalog(toy_model("adult"), toy_model("shoppers"))
    with pytest.raises(ServiceError, match='did you mean "adult"') as error:
        catalog.get("adlut")
    assert (error.value.status, error.value.param) == (404, "model")
    with pytest.raises(ServiceError, match="served are adult, shoppers"):
        catalog.get("zzzz")

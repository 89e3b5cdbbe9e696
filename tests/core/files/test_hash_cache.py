"""Digests of large files: right whatever happened to the file or to what is kept of it."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from npc_local.core.files import hash_cache as caches

LARGE = 1 << 20


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The names of the files that are read, with a cache of our own and files old enough."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(caches, "_SETTLED", -1.0)
    names: list[str] = []
    digest = caches._read

    def counted(file: Path) -> str:
        names.append(file.name)
        return digest(file)

    monkeypatch.setattr(caches, "_read", counted)
    return names


def sha256(file: Path) -> str:
    """Ask as another process would: without what this one remembers."""
    caches._sha256.cache_clear()
    found = caches.file_sha256(file)
    assert found == hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def test_a_large_file_is_read_once(tmp_path: Path, read: list[str]) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"a" * LARGE)
    assert sha256(file) == sha256(file)
    assert read == ["large"]


def test_a_small_file_is_read_each_time(tmp_path: Path, read: list[str]) -> None:
    file = tmp_path / "small"
    file.write_bytes(b"a")
    sha256(file)
    sha256(file)
    assert read == ["small"] * 2


@pytest.mark.parametrize("how", ["written", "replaced", "written, its time set back"])
def test_a_changed_file_of_the_same_size_is_read_again(
    tmp_path: Path, read: list[str], how: str
) -> None:
    file, other = tmp_path / "large", tmp_path / "other"
    file.write_bytes(b"a" * LARGE)
    times = file.stat()
    before = sha256(file)
    if how == "replaced":
        other.write_bytes(b"b" * LARGE)
        shutil.copystat(file, other)
        other.replace(file)
    else:
        file.write_bytes(b"b" * LARGE)
    if "set back" in how:
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert file.stat().st_mtime_ns == times.st_mtime_ns
    assert sha256(file) != before


def test_a_file_that_has_only_just_changed_is_not_kept(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "_SETTLED", 60.0)
    file = tmp_path / "large"
    file.write_bytes(b"a" * LARGE)
    sha256(file)
    sha256(file)
    assert read == ["large"] * 2


def test_nothing_is_lost_with_the_cache(tmp_path: Path, read: list[str]) -> None:
    file, kept = tmp_path / "large", tmp_path / "caches" / "npc-local" / "hashes.sqlite"
    file.write_bytes(b"a" * LARGE)
    sha256(file)
    kept.write_bytes(b"no database" * 1_000)
    sha256(file)
    shutil.rmtree(kept.parent)
    kept.parent.write_bytes(b"in the way")
    sha256(file)
    assert read == ["large"] * 3


def test_a_missing_file_is_an_error(tmp_path: Path, read: list[str]) -> None:
    with pytest.raises(FileNotFoundError):
        caches.file_sha256(tmp_path / "absent")

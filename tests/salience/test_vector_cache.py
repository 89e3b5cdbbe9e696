"""The cache of word vectors: what goes in comes out, and a fault of the disk costs time only."""

from __future__ import annotations

import os
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

import pytest
import torch

from npc_local.salience import vector_cache
from npc_local.salience.vector_cache import VectorCache


def vector(value: float) -> torch.Tensor:
    return torch.tensor([value, 1 / 3, -value])


def test_vectors_come_back_bit_by_bit(tmp_path: Path) -> None:
    VectorCache(tmp_path / "new" / "a.sqlite").put({"cat": vector(0.1), "two cats": vector(7)})
    found = VectorCache(tmp_path / "new" / "a.sqlite").get(["two cats", "dog", "cat"], 3)
    assert found.keys() == {"cat", "two cats"}
    assert torch.equal(found["cat"], vector(0.1))
    assert torch.equal(found["two cats"], vector(7))


def test_more_texts_than_one_query_takes(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "a.sqlite")
    cache.put({str(number): vector(number) for number in range(1_234)})
    found = cache.get([str(number) for number in range(2_000)], 3)
    assert len(found) == 1_234
    assert torch.equal(found["1233"], vector(1_233))


def test_a_vector_of_another_width_is_not_used(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "a.sqlite")
    cache.put({"cat": vector(1)})
    assert cache.get(["cat"], 4) == {}


def test_what_is_not_a_number_is_not_kept(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "a.sqlite")
    cache.put({"cat": vector(float("nan")), "dog": vector(float("inf")), "cow": vector(1)})
    assert cache.get(["cat", "dog", "cow"], 3).keys() == {"cow"}


def test_the_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_cache, "MOST", 3)
    cache = VectorCache(tmp_path / "a.sqlite")
    for word in "abcde":
        cache.put({word: vector(1)})
    assert cache.get(list("abcde"), 3).keys() == {"c", "d", "e"}


@pytest.mark.parametrize("damage", ["text", "cut"])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "a.sqlite"
    cache = VectorCache(file)
    cache.put({str(number): vector(number) for number in range(2_000)})
    whole = file.read_bytes()
    file.write_bytes(b"no database " * 1_000 if damage == "text" else whole[: len(whole) // 2])
    cache.get([str(number) for number in range(2_000)], 3)
    cache.put({"cat": vector(1)})
    assert torch.equal(cache.get(["cat"], 3)["cat"], vector(1))


def test_a_damaged_vector_is_not_used(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "a.sqlite")
    cache.put({"cat": vector(1), "dog": vector(2)})
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as other, other:
        other.execute("UPDATE vectors SET vector = ? WHERE text = 'cat'", (b"\0" * 12,))
    assert cache.get(["cat", "dog"], 3).keys() == {"dog"}


def test_a_table_of_another_form_is_begun_anew(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as other, other:
        other.execute("CREATE TABLE vectors (text TEXT, numbers BLOB)")
    cache = VectorCache(tmp_path / "a.sqlite")
    assert cache.get(["cat"], 3) == {}
    cache.put({"cat": vector(1)})
    assert cache.get(["cat"], 3).keys() == {"cat"}


def test_a_place_that_cannot_be_written_to_means_going_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = VectorCache(tmp_path / "file" / "a.sqlite")
    with pytest.warns(UserWarning, match="not kept"):
        cache.put({"cat": vector(1)})
    assert cache.get(["cat"], 3) == {}


def test_a_locked_file_is_waited_for_and_then_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_cache, "_PATIENCE", 0.01)
    file = tmp_path / "a.sqlite"
    VectorCache(file).put({"cat": vector(1)})
    with sqlite3.connect(file) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.warns(UserWarning, match="locked"):
            VectorCache(file).put({"dog": vector(1)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert VectorCache(file).get(["cat", "dog"], 3).keys() == {"cat"}


def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    file = tmp_path / "a.sqlite"
    VectorCache(file).put({"first": vector(1)})
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            try:
                VectorCache(file).put({f"child {number}": vector(number)})
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    names = ["first", *(f"child {number}" for number in range(4))]
    assert VectorCache(file).get(names, 3).keys() == set(names)

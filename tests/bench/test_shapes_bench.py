"""Benchmark results on disk: kept one by one, gone on with, and refused when settings differ."""

from __future__ import annotations

import errno
import json
import os

import pytest

from npc_local.bench.arms import Outcome, Try
from npc_local.bench.shapes_bench import Results, items
from npc_local.errors import ConfigError, StorageError
from npc_local.shapes.prompts import TAGS

SETTINGS = {"per_tag": 1, "arms": ["base"]}
OUTCOME = {"base": Outcome(False, (Try("red shapes", "untargeted", False, 0.5),), 23)}


def test_items_have_a_seed_each():
    found = items(3, [0, 4], test=True)
    assert len(found) == 2 * 3 * len(TAGS)
    assert len({item.seed for item in found}) == len(found)
    assert [item.record for item in found[: 3 * len(TAGS)]] == [
        item.record for item in found[3 * len(TAGS) :]
    ]


def test_results_survive_and_go_on(tmp_path):
    first, second, *_ = items(1, [0], test=True)
    Results(tmp_path, SETTINGS).add(first, OUTCOME)
    again = Results(tmp_path, SETTINGS)
    assert first in again
    assert second not in again
    [row] = again
    assert row["arms"]["base"]["tries"][0]["negative"] == "red shapes"


def test_a_torn_last_line_is_done_again(tmp_path):
    first, second, *_ = items(1, [0], test=True)
    results = Results(tmp_path, SETTINGS)
    results.add(first, OUTCOME)
    results.add(second, OUTCOME)
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    again = Results(tmp_path, SETTINGS)
    assert first in again
    assert second not in again
    again.add(second, OUTCOME)
    assert len(Results(tmp_path, SETTINGS)) == 2
    assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize("length", [0, 1, 20, -1])
def test_an_empty_file_or_a_torn_first_line_is_a_new_run(tmp_path, length):
    Results(tmp_path, SETTINGS)
    path = tmp_path / "results.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    assert len(Results(tmp_path, SETTINGS)) == 0
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"mine", b'{"tag": 1}\n', b"\n", b"[]\n{}"])
def test_results_of_another_program_are_left_alone(tmp_path, content):
    path = tmp_path / "results.jsonl"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"results\.jsonl holds something else"):
        Results(tmp_path, SETTINGS)
    assert path.read_bytes() == content


def test_a_refused_file_keeps_its_torn_line(tmp_path):
    Results(tmp_path, SETTINGS).add(items(1, [0], test=True)[0], OUTCOME)
    path = tmp_path / "results.jsonl"
    torn = path.read_bytes()[:-20]
    path.write_bytes(torn)
    with pytest.raises(ConfigError, match="per_tag"):
        Results(tmp_path, {**SETTINGS, "per_tag": 2})
    assert path.read_bytes() == torn


def test_a_row_that_cannot_be_written_does_not_count(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    first, *_ = items(1, [0], test=True)
    results = Results(tmp_path, SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match=r"results\.jsonl: No space left on device"):
            results.add(first, OUTCOME)
    assert first not in results


def test_the_summary_stands_beside_the_results(tmp_path):
    results = Results(tmp_path / "out", SETTINGS)
    results.write_summary("| a |\n")
    assert (tmp_path / "out" / "summary.md").read_text() == "| a |\n"


def test_a_summary_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    results = Results(tmp_path / "out", SETTINGS)
    (tmp_path / "out" / "summary.md").mkdir()
    with pytest.raises(StorageError, match=r"summary\.md: Is a directory"):
        results.write_summary("")


def test_other_settings_are_refused_with_the_difference(tmp_path):
    Results(tmp_path, SETTINGS)
    with pytest.raises(ConfigError, match="per_tag: 1 there, 2 now"):
        Results(tmp_path, {**SETTINGS, "per_tag": 2})


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match="something else"):
        Results(tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(StorageError, match="out"):
        Results(tmp_path / "out", SETTINGS)

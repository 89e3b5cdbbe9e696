"""Benchmarks for tests: the published records where they are, made-up ones of their form always."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from npc_local.bench.suites.geneval_pp import TAGS
from npc_local.bench.suites.imagine import TYPES
from npc_local.bench.suites.suite import BenchItem, Judgement

DATA = Path(os.environ.get("NPC_DATA", Path(__file__).parents[4] / "shared" / "data"))
NAMES = {"geneval++": "geneval_pp.jsonl", "imagine": "imagine_bench.jsonl"}
published_data = pytest.mark.skipif(
    not DATA.is_dir(),
    reason="needs the published records, kept beside the checkout (NPC_DATA names their folder)",
)


def geneval_records() -> list[dict[str, Any]]:
    """280 records of GenEval++'s form, 40 a tag."""
    records = []
    for tag in TAGS:
        for number in range(40):
            thing = f"{tag.replace('_', ' ')} thing {number}"
            entry: dict[str, Any] = {"class": thing, "count": 2}
            records.append({"tag": tag, "include": [entry], "prompt": f"A photo of two {thing}s"})
    return records


def imagine_records() -> list[dict[str, Any]]:
    """270 records of Imagine-Bench's form: 60 of the last type, 30 of each other."""
    kinds = [kind for kind in TYPES for _ in range(60 if kind == "Multi-Object" else 30)]
    return [
        {"id": number, "instruction": f"A photo of {number}.", "note": "It is blue.", "type": kind}
        for number, kind in enumerate(kinds, start=1)
    ]


RECORDS = {"geneval++": geneval_records, "imagine": imagine_records}


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    """Write records as the published files are."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def item(group: str, number: int = 1) -> BenchItem:
    """An item that has nothing but its group."""
    return BenchItem(number, "a cat", group, {})


def judged(group: str, *scores: float | None) -> list[tuple[BenchItem, Judgement | None]]:
    """Judged images of a group; None is a judge call that failed."""
    return [
        (item(group), None if score is None else Judgement(None, score, {}, "")) for score in scores
    ]

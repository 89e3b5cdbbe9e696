"""Runs arms over ShapesBench, keeping each result as it comes; the same command goes on.

ShapesBench is GenEval++'s seven kinds of prompts in the shapes world (`shapes.prompts`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from npc_local.bench.arms import Outcome, run_arms
from npc_local.errors import ConfigError, StorageError
from npc_local.loop import Cast
from npc_local.shapes.prompts import Record, sample_records

_HEAD = b'{"settings": '  # what results.jsonl begins with


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt with the seed of its base image."""

    record: Record
    seed: int


def items(per_tag: int, seeds: Sequence[int], *, test: bool) -> list[Item]:
    """ShapesBench's prompts, tag after tag, once for every seed.

    The base image of prompt number i under benchmark seed s has seed 10,000 s + i, so that a
    prompt that stands twice gets two images.
    """
    records = sample_records(per_tag, seed=0, test=test)
    return [
        Item(record, 10_000 * seed + number)
        for seed in seeds
        for number, record in enumerate(records)
    ]


class Results:
    """results.jsonl of one benchmark run: a line of settings, then a line an item."""

    def __init__(self, directory: Path, settings: Mapping[str, Any]) -> None:
        """Open a directory, new or of a run with the same settings.

        Raises:
            ConfigError: it holds a run with other settings; the message lists the differences.
            StorageError: it cannot be written, or holds something else.
        """
        self.path = directory / "results.jsonl"
        self._rows: dict[tuple[str, int], dict[str, Any]] = {}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                self._read(settings)
            elif any(directory.iterdir()):
                raise StorageError(f"{directory} holds something else; name a new directory")
            else:
                self._append({"settings": dict(settings)})
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}") from error

    def __contains__(self, item: Item) -> bool:
        return (item.record.prompt, item.seed) in self._rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, item: Item, outcomes: Mapping[str, Outcome]) -> None:
        """Keep the result of one item, on disk before it counts.

        Raises:
            StorageError: it cannot be written.
        """
        row = {
            "tag": item.record.tag,
            "prompt": item.record.prompt,
            "seed": item.seed,
            "arms": {arm: asdict(outcome) for arm, outcome in outcomes.items()},
        }
        try:
            self._append(row)
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}") from error
        self._rows[item.record.prompt, item.seed] = row

    def write_summary(self, text: str) -> None:
        """Write summary.md beside the results.

        Raises:
            StorageError: it cannot be written.
        """
        path = self.path.with_name("summary.md")
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from error

    def _append(self, row: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self, settings: Mapping[str, Any]) -> None:
        text = self.path.read_bytes()
        if not text.startswith(_HEAD[: len(text)]):
            raise StorageError(f"{self.path} holds something else; name a new directory")
        # A kill in the middle of a write leaves a torn last line: it is cut off and done again.
        whole = text[: text.rfind(b"\n") + 1]
        if not whole:
            os.truncate(self.path, 0)
            self._append({"settings": dict(settings)})
            return
        first, *lines = whole.decode().splitlines()
        found = json.loads(first)["settings"]
        wanted = json.loads(json.dumps(settings))
        differing = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        if differing:
            changes = "; ".join(
                f"{key}: {found.get(key)} there, {wanted.get(key)} now" for key in differing
            )
            raise ConfigError(f"{self.path} is of other settings ({changes}); name a new --out")
        os.truncate(self.path, len(whole))
        for line in lines:
            row = json.loads(line)
            self._rows[row["prompt"], row["seed"]] = row


async def run_items(
    todo: Sequence[Item],
    cast: Cast,
    arms: Sequence[str],
    budget: int,
    results: Results,
    done: Callable[[Item], None],
) -> None:
    """Run the items that `results` lacks; `done` is called after each item, old ones included.

    Raises:
        NpcError: an image could not be made or judged; what is done so far is kept.
    """
    for item in todo:
        if item not in results:
            results.add(item, await run_arms(item.record.prompt, item.seed, cast, arms, budget))
        done(item)

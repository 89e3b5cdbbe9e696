"""The journal of a run: a row a completed stage, its image beside it, all there after a crash.

    journal.sqlite   rows, failures, and what the run is (SQLite, WAL, synchronous=FULL)
    identity.json    what the run is once more, for people and for a damaged database
    images/          KEY.png, on disk before the row that names its SHA-256
    damaged/         what did not hold up, kept aside

Rows are found by the key of their stage (`hashing.digest`); what a stage is, and what goes into
its key, is left to `stages`. An error is never a row. Every row carries a SHA-256 of its own, so
that a bit that flips in the file is a row that does not count, not another answer.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from PIL.Image import Image

from npc_local.core.costs import Cost
from npc_local.core.errors import NpcError
from npc_local.core.files import paths
from npc_local.core.hashing import canonical
from npc_local.core.threads import run_in
from npc_local.run.journal import database as journal_file
from npc_local.run.journal.database import (
    CONTENT,
    COSTS,
    open_database,
    readable_errors,
    row_digest,
)
from npc_local.run.journal.home import identify, prepare
from npc_local.run.journal.images import ImageDamaged, Images
from npc_local.run.journal.lock import RunLock

R = TypeVar("R")
_PAGE = 200  # rows read at a time
_FAILED = f"kind, key, inputs, error, exit_code, {COSTS}"
_FIND = f"SELECT {CONTENT}, digest FROM steps WHERE kind = ? AND key = ? AND dropped IS NULL"
_DROP = "UPDATE steps SET dropped = ? WHERE kind = ? AND key = ? AND dropped IS NULL"
_REMAINING = """NOT EXISTS (
    SELECT 1 FROM steps
    WHERE steps.kind = failures.kind AND steps.key = failures.key AND dropped IS NULL
)"""
_LEDGER = f"""
SELECT kind, sum(step), sum(1 - step), sum(forwards), sum(calls), sum(tokens_in), sum(tokens_out),
    sum(seconds), max(peak_bytes)
FROM (
    SELECT 1 AS step, kind, {COSTS} FROM steps
    UNION ALL SELECT 0 AS step, kind, {COSTS} FROM failures
) GROUP BY kind ORDER BY kind"""


@dataclass(frozen=True, slots=True)
class Row:
    """One completed step.

    Attributes:
        kind: the step's name, "verify" for example.
        key: the SHA-256 of all that determines its answer.
        inputs: what that is, as JSON data.
        value: the answer, as JSON data.
        cost: what it took.
        image_sha256: of the file of the image that belongs to it, if one does.
        image: that image; only `Journal.find` and `take` give it.
    """

    kind: str
    key: str
    inputs: Any
    value: Any
    cost: Cost = field(default_factory=Cost)
    image_sha256: str | None = None
    image: Image | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """One step that failed, by `NpcError`: what it was about, and what it cost all the same."""

    kind: str
    key: str
    inputs: Any
    error: str
    exit_code: int
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True, slots=True)
class Ledger:
    """What all steps of a kind took, those of earlier processes and those redone included.

    `cost` has the sums, failures included; of memory, the peak.
    """

    steps: int
    failures: int
    cost: Cost


class _DamagedRow(Exception):
    """A row, or its image, that is not what was written, and in which way."""


class Journal:
    """The journal of one run, locked against other processes; a context manager.

    One thread at a time uses it: in an event loop its own, which `aside` has do everything.

    Attributes:
        directory: where it is, absolute.
        notices: what was found damaged and what became of it, for people.
    """

    @classmethod
    def open(cls, directory: Path, identity: Mapping[str, Any]) -> Self:
        """Open the journal in a directory, or begin one in a directory that is new or empty.

        Args:
            directory: where it is; "logs" may be there already.
            identity: what must be the same whenever the run goes on (`identity.run_identity`), as
                JSON data; not what may grow: prompts, seeds, arms.

        Raises:
            ConfigError: the run there has another identity; the message lists the differences.
            StorageError: another process has it open, it cannot be written to, or it holds
                something else.
        """
        directory = paths.absolute(directory)
        prepare(directory)
        lock = RunLock(directory)
        try:
            notices: list[str] = []
            database = open_database(directory, notices)
            try:
                identify(directory, database, identity)
                return cls(directory, database, lock, notices)
            except BaseException:
                database.close()
                raise
        except BaseException:
            lock.release()
            raise

    def __init__(
        self,
        directory: Path,
        database: sqlite3.Connection,
        lock: RunLock,
        notices: list[str],
    ) -> None:
        """Take what `open` has opened."""
        self.directory = directory
        self.notices = notices
        self._file = directory / journal_file.NAME
        self._database = database
        self._lock = lock
        self._images = Images(directory)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def aside(self, work: Callable[[], R]) -> R:
        """Have the journal's own thread do something; once given to it, it is done."""
        return await run_in(self._thread, work)

    def close(self) -> None:
        """Finish what is under way, and let others have the directory."""
        self._thread.shutdown()
        self._database.close()
        self._lock.release()

    def find(self, kind: str, key: str) -> Row | None:
        """Return the row of a stage with its image, if there is one and it holds up.

        Raises:
            StorageError: the journal cannot be read.
        """
        try:
            return self._read(kind, key)
        except _DamagedRow:
            return None

    def take(self, kind: str, key: str) -> Row | None:
        """Return the row as `find` does; one that does not hold up makes room for a new one.

        It is dropped, its image kept aside; `notices` says so.

        Raises:
            StorageError: the journal cannot be read or written.
        """
        try:
            return self._read(kind, key)
        except _DamagedRow as damage:
            if isinstance(damage.__cause__, ImageDamaged):
                self._images.set_aside(key)
            self.drop(kind, key, str(damage))
            return None

    def _read(self, kind: str, key: str) -> Row | None:
        with readable_errors(self._file):
            there = self._database.execute(_FIND, (kind, key)).fetchone()
        if there is None:
            return None
        *content, digest = there
        if row_digest(content) != digest:
            raise _DamagedRow("its row has changed in the file (SHA-256)")
        row = _row(content)
        if row.image_sha256 is None:
            return row
        try:
            return replace(row, image=self._images.read(key, row.image_sha256))
        except ImageDamaged as damage:
            raise _DamagedRow(str(damage)) from damage

    def add(self, row: Row, image: Image | None = None) -> None:
        """Keep a completed step: first its image, then its row, both on the disk on return.

        Raises:
            NpcError: the answer holds a number that is not finite.
            StorageError: it cannot be written; what was there before is intact.
        """
        try:
            inputs, value = canonical(row.inputs), canonical(row.value)
        except ValueError as error:
            raise NpcError(f"{row.kind}: an answer that cannot be kept: {error}") from error
        sha256 = None if image is None else self._images.write(row.key, image)
        content = (row.kind, row.key, inputs, value, sha256, *astuple(row.cost))
        marks = ", ".join("?" * (len(content) + 2))
        with self._transaction() as database:
            database.execute(_DROP, ("done again", row.kind, row.key))
            database.execute(
                f"INSERT INTO steps ({CONTENT}, digest, at) VALUES ({marks})",
                (*content, row_digest(content), time.time()),
            )

    def drop(self, kind: str, key: str, why: str) -> None:
        """Have a row count no more. It stays in the file, and what it cost stays in the sums.

        Raises:
            StorageError: it cannot be written.
        """
        with self._transaction() as database:
            database.execute(_DROP, (why, kind, key))
        self.notices.append(f"{kind} {key[:12]}: {why}; done again")

    def add_failure(self, failure: Failure) -> None:
        """Keep that a step failed: for people and for the sums, never as an answer.

        Raises:
            StorageError: it cannot be written.
        """
        content_head = (failure.kind, failure.key, canonical(failure.inputs), failure.error)
        content = (*content_head, failure.exit_code, *astuple(failure.cost), time.time())
        marks = ", ".join("?" * len(content))
        with self._transaction() as database:
            database.execute(f"INSERT INTO failures ({_FAILED}, at) VALUES ({marks})", content)

    def rows(self, kind: str | None = None) -> Iterator[Row]:
        """Yield the rows that count in the order that they came in, without their images.

        Raises:
            StorageError: the journal cannot be read.
        """
        for content in self._pages("steps", f"{CONTENT}, digest", "dropped IS NULL", kind):
            *values, digest = content
            if row_digest(values) == digest:
                yield _row(values)

    def failures(self, kind: str | None = None, *, remaining: bool = False) -> Iterator[Failure]:
        """Yield what failed, in order; `remaining`: only what has not been done since.

        Raises:
            StorageError: the journal cannot be read.
        """
        for of_kind, key, inputs, error, exit_code, *cost in self._pages(
            "failures", _FAILED, _REMAINING if remaining else "TRUE", kind
        ):
            yield Failure(of_kind, key, json.loads(inputs), error, exit_code, Cost(*cost))

    def costs(self) -> dict[str, Ledger]:
        """Return what was spent, by kind of step.

        Raises:
            StorageError: the journal cannot be read.
        """
        with readable_errors(self._file):
            rows = self._database.execute(_LEDGER).fetchall()
        return {kind: Ledger(steps, failures, Cost(*sums)) for kind, steps, failures, *sums in rows}

    def image_path(self, row: Row) -> Path:
        """Return the file of the image of a row that has one."""
        return self._images.path(row.key)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Have all or nothing of what is written inside on the disk."""
        with readable_errors(self._file):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # SQLite ends some of them on its own
                    self._database.execute("ROLLBACK")
                raise

    def _pages(
        self, table: str, columns: str, condition: str, kind: str | None
    ) -> Iterator[tuple[Any, ...]]:
        """Yield rows a page at a time, so that neither memory nor the journal is held."""
        last, condition_of_kind = 0, "TRUE" if kind is None else "kind = :kind"
        query = (
            f"SELECT id, {columns} FROM {table} "
            f"WHERE id > :last AND {condition} AND {condition_of_kind} ORDER BY id LIMIT {_PAGE}"
        )
        while True:
            with readable_errors(self._file):
                page = self._database.execute(query, {"last": last, "kind": kind}).fetchall()
            for number, *content in page:
                last = number
                yield tuple(content)
            if len(page) < _PAGE:
                return


def _row(content: Sequence[Any]) -> Row:
    kind, key, inputs, value, image, *cost = content
    return Row(kind, key, json.loads(inputs), json.loads(value), Cost(*cost), image)

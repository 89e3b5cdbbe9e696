"""The file journal.sqlite: made, opened, checked, and replaced if it is damaged.

A damaged database is kept aside whole. What can still be read of it, and whose rows hold up, goes
into a new one; the rest is done again. What the rows mean is left to `journal`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from npc_local.core.errors import StorageError
from npc_local.core.files import paths
from npc_local.core.files.atomic import cannot_write, sync_directory
from npc_local.run.journal.images import DAMAGED

NAME = "journal.sqlite"
IDENTITY = "identity.json"
VERSION = 1
_OURS = 0x4E50434A  # "NPCJ": the application id in the file's header

_COSTS = """
    forwards INTEGER NOT NULL, calls INTEGER NOT NULL, tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL, seconds REAL NOT NULL, peak_bytes INTEGER NOT NULL"""
_SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE steps (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL, key TEXT NOT NULL, inputs TEXT NOT NULL, value TEXT NOT NULL,
    image TEXT,{_COSTS},
    digest TEXT NOT NULL,
    at REAL NOT NULL,
    dropped TEXT
) STRICT;
CREATE UNIQUE INDEX steps_by_key ON steps (kind, key) WHERE dropped IS NULL;
CREATE TABLE failures (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL, key TEXT NOT NULL, inputs TEXT NOT NULL,
    error TEXT NOT NULL, exit_code INTEGER NOT NULL,{_COSTS},
    at REAL NOT NULL
) STRICT;
CREATE INDEX failures_by_key ON failures (kind, key);
"""
# What a row's digest covers, in this order.
COSTS = "forwards, calls, tokens_in, tokens_out, seconds, peak_bytes"
CONTENT = f"kind, key, inputs, value, image, {COSTS}"
_FULL = f"id, {CONTENT}, digest, at, dropped"
_ROOM = 2**20  # bytes; SQLite's own files grow by less at a time
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SQLITE_FILES = (NAME, f"{NAME}-wal", f"{NAME}-shm")


def row_digest(content: Sequence[object]) -> str:
    """Return the SHA-256 of a row's content."""
    return hashlib.sha256(json.dumps(list(content)).encode()).hexdigest()


def open_database(directory: Path, notices: list[str]) -> sqlite3.Connection:
    """Open the database in a directory, new if there is none; say in `notices` what was lost.

    Raises:
        StorageError: it is not ours, of another version, or cannot be used.
    """
    file = directory / NAME
    was_run = paths.exists(directory / IDENTITY, StorageError)
    with readable_errors(file):
        try:
            connection = _connect(file)
            try:
                _check(connection, file)
                empty = not _tables(connection)
            except BaseException:
                connection.close()
                raise
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            return _replace(directory, error, notices)
        if empty:
            _create(connection)
            sync_directory(directory)
            if was_run:
                notices.append(f"{file}: missing or empty, although this is a run; begun anew")
        return connection


@contextmanager
def readable_errors(file: Path) -> Iterator[None]:
    """Turn what SQLite says of a file into `StorageError`."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise  # a bug of ours
    except sqlite3.Error as error:
        if _is_full(error, file.parent):
            said = "cannot be written: no space left on the disk"
        elif isinstance(error, sqlite3.DatabaseError) and _is_damage(error):
            said = (
                f"damaged ({error}); the same command, run again, keeps the file aside and goes "
                "on with what can be read of it"
            )
        else:
            said = f"cannot be used: {error}"
        raise StorageError(f"{file}: {said}") from error


def _is_full(error: sqlite3.Error, directory: Path) -> bool:
    """Whether SQLite failed for want of room, which it calls by several names.

    "disk I/O error" or "unable to open database file" is what it says where one of its own files
    cannot grow, and it does not say why: so it is tried.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return code == sqlite3.SQLITE_FULL
    try:
        with tempfile.TemporaryFile(dir=directory) as trial:
            trial.write(bytes(_ROOM))
            trial.flush()
    except OSError as refusal:
        return refusal.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _tables(connection: sqlite3.Connection) -> int:
    [count] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return int(count)


def _check(connection: sqlite3.Connection, file: Path) -> None:
    """Refuse a database that is not ours; find damage, which is a `sqlite3.DatabaseError`."""
    if not _tables(connection):
        return
    [ours] = connection.execute("PRAGMA application_id").fetchone()
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if ours != _OURS:
        raise StorageError(f"{file}: no journal of npc-local; name another directory")
    if version != VERSION:
        raise StorageError(
            f"{file}: a journal of another version of npc-local (format {version}, this one has "
            f"{VERSION}); go on with that version, or name another directory"
        )
    [verdict] = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        damage = sqlite3.DatabaseError(verdict)
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage


def _create(connection: sqlite3.Connection) -> None:
    connection.executescript(
        f"BEGIN; PRAGMA application_id = {_OURS}; PRAGMA user_version = {VERSION};{_SCHEMA}COMMIT;"
    )


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # The low byte is the error, the rest says more about it.
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _DAMAGE


def _replace(
    directory: Path, error: sqlite3.DatabaseError, notices: list[str]
) -> sqlite3.Connection:
    """Keep a damaged database aside and begin a new one with what can be read of it."""
    aside = _set_aside(directory)
    connection = _connect(directory / NAME)
    try:
        _create(connection)
        kept = 0
        connection.execute("BEGIN")
        for name, value in _read(aside, "SELECT name, value FROM meta"):
            connection.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, value))
        for order in ("ASC", "DESC"):  # from both ends up to what cannot be read
            for row in _read(aside, f"SELECT {_FULL} FROM steps ORDER BY id {order}"):
                _, *content, digest, _, _ = row
                if row_digest(content) == digest:
                    marks = ", ".join("?" * len(row))
                    kept += connection.execute(
                        f"INSERT OR IGNORE INTO steps ({_FULL}) VALUES ({marks})", row
                    ).rowcount
        connection.execute("COMMIT")
        sync_directory(directory)
    except BaseException:
        connection.close()
        raise
    notices.append(
        f"{directory / NAME}: damaged ({error}); kept as {aside}. {kept} steps could be read and "
        "count; what is missing is done again"
    )
    return connection


def _set_aside(directory: Path) -> Path:
    """Move the files of the database into damaged/; return where the database is now."""
    folder = directory / DAMAGED
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    try:
        folder.mkdir(exist_ok=True)
        for name in _SQLITE_FILES:
            if paths.exists(directory / name, StorageError):
                os.replace(directory / name, folder / f"{stamp}-{name}")
        sync_directory(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder / f"{stamp}-{NAME}"


def _read(file: Path, query: str) -> Iterator[tuple[Any, ...]]:
    """Yield rows of a damaged database up to the first that cannot be read."""
    try:
        # Read-only: what is kept aside stays as it was found.
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            yield from connection.execute(query)
    except (sqlite3.Error, UnicodeDecodeError):
        return

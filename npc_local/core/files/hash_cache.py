"""What is kept between runs in the user's cache: losing any of it costs time and nothing else."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

from npc_local.core.errors import ConfigError
from npc_local.core.files import paths

_LARGE = 1 << 20  # bytes: smaller files are read as fast as they are looked up
_SETTLED = 2.0  # seconds: a file may change again within one tick of its file system's clock
_TABLE = (
    "CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, state TEXT NOT NULL, "
    "sha256 TEXT NOT NULL)"
)


def cache_directory() -> Path:
    """Return where the user's caches are: $XDG_CACHE_HOME/npc-local, else ~/.cache/npc-local.

    Raises:
        ConfigError: this user has no home.
    """
    home = os.environ.get("XDG_CACHE_HOME")
    base = Path(home) if home else paths.expanded(Path("~/.cache"))
    return base / "npc-local"


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file; a large one is read again only after it has changed.

    Whether it has is told by size, inode, and the times of its last modification and of its last
    change of state, which no copying tool sets back.

    Raises:
        OSError: it cannot be read.
        ConfigError: its path is relative, and the working directory was deleted.
    """
    state = file.stat()
    return _sha256(
        paths.absolute(file),
        f"{state.st_size} {state.st_ino} {state.st_mtime_ns} {state.st_ctime_ns}",
        state.st_size >= _LARGE and time.time() - state.st_ctime > _SETTLED,
    )


@cache
def _sha256(file: Path, state: str, keep: bool) -> str:
    if not keep:
        return _read(file)
    path = os.fsencode(file).decode("utf-8", "surrogateescape")
    with suppress(sqlite3.Error, OSError, UnicodeError, ConfigError):
        place = cache_directory()
        place.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(place / "hashes.sqlite", timeout=5)) as known, known:
            known.execute(_TABLE)
            query = "SELECT sha256 FROM hashes WHERE path = ? AND state = ?"
            row = known.execute(query, (path, state)).fetchone()
            if row is not None:
                return str(row[0])
            digest = _read(file)
            known.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?)", (path, state, digest))
            return digest
    return _read(file)


def _read(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

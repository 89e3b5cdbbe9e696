"""Which directory a journal may live in, and whether the run there is the same as now."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from npc_local.core.errors import ConfigError, StorageError
from npc_local.core.files import paths
from npc_local.core.files.atomic import cannot_write, write_durably
from npc_local.core.hashing import canonical
from npc_local.run.journal import database as journal_file
from npc_local.run.journal import lock as runlock
from npc_local.run.journal.database import IDENTITY, readable_errors
from npc_local.run.journal.differences import differences
from npc_local.run.journal.images import DAMAGED

_BEFORE = {runlock.NAME, "logs", "images", DAMAGED}  # what a run may have before its database


def prepare(directory: Path) -> None:
    """Make the directory, or refuse one that holds something else.

    Raises:
        StorageError: it is a file or a symbolic link, holds something else, or cannot be made.
    """
    try:
        if paths.is_symlink(directory, StorageError):
            raise StorageError(
                f"{directory}: a symbolic link; name the directory that it points to"
            )
        if paths.exists(directory, StorageError) and not paths.is_dir(directory, StorageError):
            raise StorageError(f"{directory}: a file; name a directory")
        directory.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in paths.children(directory, StorageError)}
    except OSError as error:
        raise cannot_write(directory, error) from error
    if not names & {journal_file.NAME, IDENTITY} and (others := names - _BEFORE):
        raise StorageError(
            f"{directory}: holds something else ({min(others)}); name a new directory"
        )


def identify(directory: Path, database: sqlite3.Connection, identity: Mapping[str, Any]) -> None:
    """Write down what the run is, or refuse to go on with another one.

    Raises:
        ConfigError: the run there has another identity.
        StorageError: it cannot be written down.
    """
    file = directory / IDENTITY
    now = json.loads(canonical(identity))
    with readable_errors(directory / journal_file.NAME):
        found = database.execute("SELECT value FROM meta WHERE name = 'identity'").fetchone()
        there = _read_identity(file) if found is None else json.loads(found[0])
        if there is not None and (changes := differences(there, now)):
            raise ConfigError(
                f"{directory}: a run with other settings ({'; '.join(changes)}); set them back, or "
                "begin a new run in a new directory"
            )
        if found is None:
            database.execute("INSERT INTO meta VALUES ('identity', ?)", (canonical(now),))
    if _read_identity(file) != now:
        write_durably(file, (json.dumps(now, indent=2) + "\n").encode())


def _read_identity(file: Path) -> dict[str, Any] | None:
    """Return what identity.json says, or None if it is not there or damaged."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None

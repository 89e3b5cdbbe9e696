"""Which directory a journal may live in, and whether the run there is the same as now."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
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

_CODE = "code."  # of an identity: digests, which tell people nothing
_BEFORE = {runlock.NAME, "logs", "images", DAMAGED}  # what a run may have before its database


def prepare(directory: Path) -> bool:
    """Make the directory, or refuse one that holds something else; return whether it is new.

    Raises:
        StorageError: it is a file or a symbolic link, holds something else, cannot be made, or
            cannot be written to.
    """
    try:
        if paths.is_symlink(directory, StorageError):
            raise StorageError(
                f"{directory}: a symbolic link; name the directory that it points to"
            )
        if paths.exists(directory, StorageError) and not paths.is_dir(directory, StorageError):
            raise StorageError(f"{directory}: a file; name a directory")
        new = not paths.exists(directory, StorageError)
        directory.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in paths.children(directory, StorageError)}
    except OSError as error:
        raise cannot_write(directory, error) from error
    if not names & {journal_file.NAME, IDENTITY} and (others := names - _BEFORE):
        raise StorageError(
            f"{directory}: holds something else ({min(others)}); name a new directory"
        )
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass  # only a write tells whether one can write
    except OSError as error:
        if new:
            with suppress(OSError):
                directory.rmdir()
        raise cannot_write(directory, error) from error
    return new


def check_settings(directory: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to go on with a run of other settings, by those that are known before it is opened.

    Args:
        directory: the journal's; there may be none in it yet.
        settings: some of what the run's identity will be.

    Raises:
        ConfigError: the run there has others.
    """
    there = _read_identity(directory / IDENTITY)
    if there is not None:
        now = json.loads(canonical(settings))
        _refuse(directory, differences(_part(there, now), now))


def _part(tree: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a tree has its place in another one too."""
    return {
        key: _part(value, like[key])
        if isinstance(value, Mapping) and isinstance(like[key], Mapping)
        else value
        for key, value in tree.items()
        if key in like
    }


def _refuse(directory: Path, changes: Sequence[str]) -> None:
    """Refuse to go on if something differs, saying what can be done about it.

    Raises:
        ConfigError: something does.
    """
    if not changes:
        return
    settings = [change for change in changes if not change.startswith(_CODE)]
    code = [change[len(_CODE) :].partition(":")[0] for change in changes if change not in settings]
    said = [*settings, *([f"the code of {', '.join(code)}"] if code else [])]
    what, back = "a run with other settings", "set them back"
    if not settings:
        what, back = "a run of another version of npc-local", "go on with that version"
    raise ConfigError(
        f"{directory}: {what} ({'; '.join(said)}); {back}, or begin a new run in a new directory: "
        "--fresh, or another --out"
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
        row = database.execute("SELECT value FROM meta WHERE name = 'identity'").fetchone()
        there = _read_identity(file) if row is None else json.loads(row[0])
        if there is not None:
            _refuse(directory, differences(there, now))
        if row is None:
            database.execute("INSERT INTO meta VALUES ('identity', ?)", (canonical(now),))
    if _read_identity(file) != now:
        write_durably(file, (json.dumps(now, indent=2) + "\n").encode())


def _read_identity(file: Path) -> dict[str, Any] | None:
    """Return what identity.json says, or None if it is not there or damaged."""
    try:
        identity = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return identity if isinstance(identity, dict) else None

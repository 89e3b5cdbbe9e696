"""Where a command's results go: its directory, and the folders of its prompts in it.

Names are made of numbers, hashes and what is harmless of a prompt's id; a prompt never becomes part
of a path. What a folder holds is left to `result_folder`, what a journal needs to `journal.home`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from npc_local.core.errors import StorageError
from npc_local.core.files import paths
from npc_local.core.files.atomic import cannot_write

_LOGS = "logs"  # all that a command leaves that was killed before its first stage
_ID = 40  # characters of an id that a name has


@contextmanager
def output_directory(wanted: Path | None) -> Iterator[Path]:
    """Give a directory that is empty, logs apart, and can be written to, as an absolute path.

    None makes a fresh one under ./npc-local-runs. One that was made here is removed again at the
    end if nothing came to be in it.

    Raises:
        StorageError: it holds something, is a file or a symbolic link, or cannot be written to.
    """
    path = paths.absolute(wanted or _unused())
    try:
        if paths.is_symlink(path, StorageError):
            raise StorageError(f"{path}: a symbolic link; name the directory that it points to")
        made = not paths.exists(path, StorageError)
        if not made and not paths.is_dir(path, StorageError):
            raise StorageError(f"{path}: a file; name a directory")
        path.mkdir(parents=True, exist_ok=True)
        if any(entry.name != _LOGS for entry in paths.children(path, StorageError)):
            raise StorageError(f"{path}: not empty; name a new directory, or empty this one")
        with tempfile.TemporaryFile(dir=path):
            pass  # only a write tells whether one can write
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield path
    finally:
        if made:
            with suppress(OSError):  # not empty: there are results
                path.rmdir()


@contextmanager
def run_directory(wanted: Path | None, *, fresh: bool) -> Iterator[Path]:
    """Give the directory of a run that can go on, as an absolute path.

    None is a new one under ./npc-local-runs. `fresh` takes the first of DIR, DIR-2, DIR-3 and so on
    that is not there yet, or is empty, and has it to itself while inside: another command that
    looks for one at the same moment takes the next.

    Raises:
        StorageError: it cannot be told whether one is there, or none can be made.
    """
    first = path = paths.absolute(wanted or _unused())
    if not fresh:
        yield path
        return
    number = 1
    while (claim := _claim(path)) is None:
        number += 1
        path = first.with_name(f"{first.name}-{number}")
    try:
        yield path
    finally:
        os.close(claim)
        with suppress(OSError):  # not empty: a run has begun
            path.rmdir()


def folder_name(number: int, prompt: str, digits: int = 2, name: str | None = None) -> str:
    """Name the folder of one prompt of several.

    Args:
        number: the prompt's, from 1.
        prompt: of which the name has a hash.
        digits: the least that the number takes.
        name: the prompt's own, if it has one.
    """
    own = re.sub(r"[^\w.-]+", "-", name or "", flags=re.ASCII)[:_ID].strip("-.")
    return f"{number:0{digits}d}-{prompt_hash(prompt)}" + (f"-{own}" if own else "")


def prompt_hash(prompt: str) -> str:
    """Return the hash of a prompt that the name of its folder has."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:8]


def _unused() -> Path:
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    return Path("npc-local-runs", name)


def _claim(path: Path) -> int | None:
    """Make a directory if need be and lock it; return None unless it is empty and nobody's.

    The lock is on the directory itself: it leaves nothing behind, whatever happens.
    """
    if paths.exists(path, StorageError) and not paths.is_dir(path, StorageError):
        return None
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise cannot_write(path, error) from error
    free = False
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        except OSError:
            pass  # a file system without locks on directories
        # Another command may have removed it between the two: it was empty.
        free = paths.exists(path, StorageError) and not paths.children(path, StorageError)
        return descriptor if free else None
    finally:
        if not free:
            os.close(descriptor)

"""Files that are there whole or not at all, also after a power cut."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from npc_local.core.errors import StorageError

TEMPORARY = ".tmp"  # how the names of unfinished files end


def write_durably(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and have it on the disk before returning.

    Raises:
        StorageError: it cannot be written; what was there before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(3)}{TEMPORARY}")
    try:
        path.parent.mkdir(exist_ok=True)
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def sync_directory(path: Path) -> None:
    """Make a rename in this directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_write(path: Path, error: OSError) -> StorageError:
    """Say what could not be written, and why."""
    return StorageError(f"{path}: cannot be written: {error.strerror or error}")

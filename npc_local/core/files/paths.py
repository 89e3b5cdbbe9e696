"""Asks about paths that people name, and answers each with a value or an error of ours.

`pathlib` says False for what is not there, but raises for what it may not look at, for names that
are too long, for a working directory that was deleted and for a home that nobody has; such an
exception is a traceback in somebody's terminal. Every module asks here instead (a test sees to
it), and says by `kind` which error a path of its sort is.
"""

from __future__ import annotations

import errno
import os
import stat
from fnmatch import fnmatchcase
from pathlib import Path

from npc_local.core.errors import ConfigError, NpcError

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EBADF}
_LARGEST = 1 << 28  # bytes: larger than any text that is read whole; /dev/zero has no end
_SHOWN = 300  # characters of a path that a message shows


def exists(path: Path, kind: type[NpcError]) -> bool:
    """Return whether anything is there; a link that leads nowhere is nothing.

    Raises:
        NpcError: of `kind`, it cannot be told; so do the other questions.
    """
    return _status(path, kind) is not None


def is_file(path: Path, kind: type[NpcError]) -> bool:
    """Return whether a regular file is there, or a link to one."""
    status = _status(path, kind)
    return status is not None and stat.S_ISREG(status.st_mode)


def is_dir(path: Path, kind: type[NpcError]) -> bool:
    """Return whether a directory is there, or a link to one."""
    status = _status(path, kind)
    return status is not None and stat.S_ISDIR(status.st_mode)


def is_symlink(path: Path, kind: type[NpcError]) -> bool:
    """Return whether the path itself is a symbolic link."""
    status = _status(path, kind, follow=False)
    return status is not None and stat.S_ISLNK(status.st_mode)


def children(folder: Path, kind: type[NpcError], pattern: str = "*") -> list[Path]:
    """Return what a directory holds and `pattern` fits, sorted by name.

    Raises:
        NpcError: of `kind`, it is no directory, or cannot be read.
    """
    try:
        names = os.listdir(folder)
    except (OSError, ValueError) as error:
        raise unreadable(folder, error, kind) from error
    return [folder / name for name in sorted(names) if fnmatchcase(name, pattern)]


def read(path: Path, kind: type[NpcError], *, at_most: int = _LARGEST) -> bytes:
    """Return the content of a file, or of a pipe, of `at_most` so many bytes.

    Raises:
        NpcError: of `kind`, it is not there, no file, too large, or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(at_most + 1)
    except FileNotFoundError:
        raise kind(f"{shown(path)}: no such file") from None
    except (OSError, ValueError) as error:
        raise unreadable(path, error, kind) from error
    if len(content) > at_most:
        raise kind(f"{shown(path)}: more than {at_most >> 20} MiB; this cannot be the file meant")
    return content


def working_directory() -> Path:
    """Return the directory that this process is in.

    Raises:
        ConfigError: it was deleted, or cannot be looked at.
    """
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigError(
            f"the working directory cannot be used ({reason(error)}); go to one that is there (cd)"
        ) from error


def absolute(path: Path) -> Path:
    """Return a path from the root, links in it as they are; errors as `working_directory`."""
    return path if path.is_absolute() else working_directory() / path


def resolved(path: Path, kind: type[NpcError]) -> Path:
    """Return a path from the root, without links.

    Raises:
        NpcError: of `kind`, the links go in a circle; or as `working_directory`.
    """
    try:
        return absolute(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise unreadable(path, error, kind) from error


def expanded(path: Path) -> Path:
    """Return a path with `~` or `~name` at its beginning replaced by that home.

    Raises:
        ConfigError: nobody of that name has a home here.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{shown(path)}: no home directory of that name is known") from error


def unreadable(path: Path, error: Exception, kind: type[NpcError]) -> NpcError:
    """Return the error of `kind` that says which path cannot be read, and why."""
    return kind(f"{shown(path)}: cannot be read: {reason(error)}")


def reason(error: Exception) -> str:
    """Return what the system says, without the path, which the message has already."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def shown(path: Path) -> str:
    """Return a path for a message: the middle of a very long one is left out."""
    text = str(path)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}...{text[-_SHOWN // 2 :]}"


def _status(path: Path, kind: type[NpcError], *, follow: bool = True) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=follow)
    except ValueError:  # a NUL in it, or what no file system can spell
        return None
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise unreadable(path, error, kind) from error

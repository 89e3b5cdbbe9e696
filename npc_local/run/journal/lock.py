"""One process a journal: a lock that the kernel takes back when its holder dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import time
from pathlib import Path

from npc_local.core.errors import StorageError
from npc_local.core.files.atomic import cannot_write

NAME = "journal.lock"


class RunLock:
    """The lock on a journal's directory, held until `release` or the end of this process."""

    def __init__(self, directory: Path) -> None:
        """Take the lock.

        Raises:
            StorageError: another process holds it, or the directory cannot be written to.
        """
        self.path = directory / NAME
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._sign()
        except OSError as error:
            holder = self._holder()
            os.close(self._descriptor)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise cannot_write(self.path, error) from error
            raise StorageError(
                f"{directory}: in use by {holder}; wait for it to end, or name another directory"
            ) from None

    def release(self) -> None:
        """Let others have the directory."""
        os.close(self._descriptor)  # the file stays: to remove it would race with a next holder

    def _sign(self) -> None:
        """Write down who holds it: the lock itself says only that somebody does."""
        started = time.strftime("%Y-%m-%d %H:%M:%S %z")
        mine = {"pid": os.getpid(), "host": platform.node(), "started": started}
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(mine).encode(), 0)

    def _holder(self) -> str:
        try:
            text = os.pread(self._descriptor, 1000, 0)
            holder = json.loads(text)
            pid, started, host = holder["pid"], holder["started"], holder["host"]
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
        return f"process {pid} on {host}, since {started}"

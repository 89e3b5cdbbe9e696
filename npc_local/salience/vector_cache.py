"""Vectors of words and phrases on disk, so that no word is encoded twice with the same encoder.

One SQLite file an encoder, named by its content. It is a cache: losing it costs time, nothing else.
A damaged file is begun anew; a place that cannot be written to means going without.
"""

from __future__ import annotations

import sqlite3
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

MOST = 20_000  # vectors kept an encoder: about 330 MB with T5-XXL's 4,096 numbers each
_TABLE = (
    "CREATE TABLE IF NOT EXISTS vectors "
    "(text TEXT PRIMARY KEY, vector BLOB NOT NULL, crc INTEGER NOT NULL)"
)
_PATIENCE = 5.0  # seconds, for another process that writes
_ASKED = 500  # texts a query: SQLite allows so many parameters everywhere
T = TypeVar("T")


class VectorCache:
    """Keeps one float32 vector a text."""

    def __init__(self, file: Path) -> None:
        """Name the file; it is opened with each use, and made with the first vector kept."""
        self._file = file

    def get(self, texts: Sequence[str], width: int) -> dict[str, Tensor]:
        """Return the vectors of those texts that are there, each of shape (width,)."""
        import torch

        def look_up(connection: sqlite3.Connection) -> dict[str, Tensor]:
            found = {}
            for start in range(0, len(texts), _ASKED):
                some = texts[start : start + _ASKED]
                query = f"SELECT text, vector, crc FROM vectors WHERE text IN ({_marks(some)})"
                for text, blob, crc in connection.execute(query, some):
                    if len(blob) == 4 * width and zlib.crc32(blob) == crc:
                        found[text] = torch.frombuffer(bytearray(blob), dtype=torch.float32)
            return found

        return self._use(look_up) or {} if self._file.exists() else {}

    def put(self, vectors: Mapping[str, Tensor]) -> None:
        """Keep vectors; those that are not finite are left out, the oldest make room."""
        finite = {
            text: vector.float().contiguous().numpy().tobytes()
            for text, vector in vectors.items()
            if vector.isfinite().all()
        }
        rows = [(text, blob, zlib.crc32(blob)) for text, blob in finite.items()]

        def keep(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
            newest = "(SELECT max(rowid) FROM vectors)"
            connection.execute(f"DELETE FROM vectors WHERE rowid <= {newest} - ?", (MOST,))

        if rows:
            self._use(keep)

    def _use(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Return what `work` makes of the open file; None where the file cannot be used."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._file, timeout=_PATIENCE)) as connection, connection:
                # A cache that a power cut takes back is no loss: no waiting for the disk.
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute(_TABLE)
                return work(connection)
        except (sqlite3.DatabaseError, OSError) as error:
            # SQLITE_ERROR: a table of other columns.
            unusable = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
            if isinstance(error, OSError | sqlite3.OperationalError) and not unusable:
                # Read-only, full, locked for long.
                warnings.warn(f"{self._file}: word vectors are not kept ({error})", stacklevel=4)
            else:  # damaged, or no database of ours
                with suppress(OSError):
                    self._file.unlink()
        return None


def _marks(values: Sequence[str]) -> str:
    return ",".join("?" * len(values))

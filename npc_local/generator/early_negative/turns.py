"""One thread at a time for what only one may use: a pipeline, a denoiser that pipelines share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from npc_local.core.errors import ConfigError


@dataclass
class _Turn:
    lock: threading.Lock = field(default_factory=threading.Lock)
    thread: int | None = None  # whose turn it is
    users: int = 0  # who has it or waits for it


_guard = threading.Lock()
_turns: dict[tuple[int, str], _Turn] = {}  # by what it is of, and for what


@contextmanager
def turn(owner: object, refusal: str) -> Iterator[None]:
    """Wait until no other thread has this turn with `owner`, and have it.

    Raises:
        ConfigError: this thread has it already and would wait for itself; says `refusal`, which
            also tells different turns with the same object apart.
    """
    me, key = threading.get_ident(), (id(owner), refusal)
    with _guard:
        mine = _turns.setdefault(key, _Turn())
        if mine.thread == me:
            raise ConfigError(refusal)
        mine.users += 1
    try:
        with mine.lock:
            mine.thread = me
            try:
                yield
            finally:
                mine.thread = None
    finally:
        with _guard:
            mine.users -= 1
            if not mine.users:
                del _turns[key]

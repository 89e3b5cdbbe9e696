"""What the loop asks of whatever makes images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from npc_local.core.records import Render, Shot


class Generator(Protocol):
    """Makes images. Synchronous: one worker thread owns it."""

    def generate(self, shots: Sequence[Shot]) -> list[Render]:
        """Make one image a shot, in order. Same shot, same settings, same machine: same bytes.

        Raises:
            GeneratorError: the model failed (out of memory, not a number, ...).
        """
        ...

    def fingerprint(self) -> str:
        """Return a string that changes whenever the images may change."""
        ...

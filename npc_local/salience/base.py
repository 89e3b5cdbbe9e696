"""What the loop asks of whatever ranks negative prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Scorer(Protocol):
    """Scores negative prompts against a prompt in text space, without making an image."""

    def score(self, prompt: str, negatives: Sequence[str]) -> list[float]:
        """Return one salience score a negative, in order; higher is tried earlier."""
        ...

    def fingerprint(self) -> str:
        """Return a string that changes whenever the scores may change."""
        ...

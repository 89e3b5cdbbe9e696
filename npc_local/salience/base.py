"""What the loop asks of whatever ranks negative prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Scorer(Protocol):
    """Scores negative prompts against a prompt in text space, without making an image."""

    def accepts(self, prompt: str) -> None:
        """Raise what ranking for `prompt` would raise for want of a part. Called before any work.

        A parser that is missing, say: better told before the first image than after it.
        """
        ...

    def score(self, prompt: str, negatives: Sequence[str]) -> list[float]:
        """Return one salience score a negative, in order; higher is tried earlier."""
        ...

    def fingerprint(self) -> str:
        """Return a string that changes whenever the scores may change."""
        ...

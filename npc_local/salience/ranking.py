"""The rank step: negative prompts sorted by salience, in text space; no image is made."""

from __future__ import annotations

import math
from collections.abc import Sequence

from npc_local.core.errors import NpcError
from npc_local.core.records import Candidate, Negative
from npc_local.salience.base import Scorer


def rank(scorer: Scorer, prompt: str, negatives: Sequence[Negative]) -> tuple[Candidate, ...]:
    """Sort from the highest salience score down; ties keep the proposer's order.

    Raises:
        NpcError: a score is not a number.
    """
    scores = scorer.score(prompt, [negative.text for negative in negatives])
    ranked = [Candidate(*pair) for pair in zip(negatives, scores, strict=True)]
    for candidate in ranked:
        if not math.isfinite(candidate.score):
            raise NpcError(f"salience score of {candidate.negative.text!r} is not a number")
    return tuple(sorted(ranked, key=lambda candidate: candidate.score, reverse=True))

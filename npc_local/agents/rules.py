"""What a profile says about the agents' work, apart from who does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from npc_local.core.records import Proposals

Strictness = Literal["strict", "normal", "lenient"]


@dataclass(frozen=True, slots=True)
class Rules:
    """When an image is correct, how many votes each verdict takes, what the proposer is shown.

    strictness:
        normal: every claim holds.
        strict: and the verifier's own score is at least 0.9, on the average of the votes.
        lenient: every object and every count holds; without such claims, every claim.
    votes:
        verify requests an image, each with a seed of its own. A claim holds if more than half of
        them say so: a tie fails it, so an even number is the stricter choice.
    proposals:
        caption: from prompt, caption and reason (the method).
        prompt-only: from the prompt alone; nothing is known of the image (the paper's ablation).
        targeted-only, untargeted-only: as caption, one kind of negative prompts only.
    """

    strictness: Strictness = "normal"
    votes: int = 1
    proposals: Proposals = "caption"

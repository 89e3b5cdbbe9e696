"""In-memory stand-ins for what makes images and ranks negatives, and replies for the agents."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from npc_local.errors import GeneratorError
from npc_local.records import Render, Shot


class FakeGenerator:
    """Makes 1 x 1 images whose red value is the number of the image; may fail at one of them."""

    def __init__(self, fallbacks: Sequence[str] = (), *, fail_at: int | None = None) -> None:
        """Remember at which image to fail, and what to claim that memory forced."""
        self.fail_at = fail_at
        self.fallbacks = tuple(fallbacks)
        self.shots: list[Shot] = []

    def generate(self, shots: Sequence[Shot]) -> list[Render]:
        """Make one image a shot."""
        renders = []
        for shot in shots:
            if len(self.shots) == self.fail_at:
                raise GeneratorError("out of memory")
            image = Image.new("RGB", (1, 1), (len(self.shots), 0, 0))
            renders.append(Render(image, forwards=10, seconds=0.0, fallbacks=self.fallbacks))
            self.shots.append(shot)
        return renders

    def fingerprint(self) -> str:
        """Return a constant: always the same images."""
        return "fake"


class FakeScorer:
    """Gives each negative the score it is told to; 0 to the others."""

    def __init__(self, **scores: float) -> None:
        """Take scores by negative prompt."""
        self.scores = scores
        self.asked: list[tuple[str, list[str]]] = []

    def fingerprint(self) -> str:
        """Return a constant: always the same scores."""
        return "fake"

    def score(self, prompt: str, negatives: Sequence[str]) -> list[float]:
        """Look the scores up."""
        self.asked.append((prompt, list(negatives)))
        return [self.scores.get(negative, 0.0) for negative in negatives]


def verdict(correct: bool = False, score: float = 0.5, reason: str = "one circle") -> dict:
    """Return a verifier's reply."""
    return {"correct": correct, "score": score, "reason": "" if correct else reason, "claims": []}


def proposal(*texts: str) -> dict:
    """Return a proposer's reply."""
    return {"negatives": [{"text": text, "kind": "untargeted"} for text in texts]}


CAPTION = {"caption": "One red circle on sand, under a grey sky."}
RIGHT = verdict(correct=True, score=1.0)
FAILURE = {"error": "server on fire"}

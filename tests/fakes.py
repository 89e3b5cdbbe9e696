"""In-memory stand-ins for what makes images and ranks negatives, and replies for the agents."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from npc_local.core.errors import GeneratorError
from npc_local.core.records import Render, Shot


class FakeGenerator:
    """Makes 1 x 1 images whose red value is the number of the image; may fail at one of them."""

    def __init__(self, fallbacks: Sequence[str] = (), *, fail_at: int | None = None) -> None:
        """Remember at which image to fail, and what to claim that memory forced."""
        self.fail_at = fail_at
        self.fallbacks = tuple(fallbacks)
        self.shots: list[Shot] = []

    def generate(self, shot: Shot, on_step: object = None) -> Render:
        """Make one image."""
        if len(self.shots) == self.fail_at:
            raise GeneratorError("out of memory")
        image = Image.new("RGB", (1, 1), (len(self.shots), 0, 0))
        self.shots.append(shot)
        return Render(image, forwards=10, seconds=0.0, fallbacks=self.fallbacks)

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

    def accepts(self, prompt: str) -> None:
        """Accept any prompt."""

    def score(self, prompt: str, negatives: Sequence[str]) -> list[float]:
        """Look the scores up."""
        self.asked.append((prompt, list(negatives)))
        return [self.scores.get(negative, 0.0) for negative in negatives]


_CLAIMS = 10


def checklist(*texts: str, kind: str = "object") -> dict:
    """Return a verifier's reply to a prompt."""
    return {"claims": [{"text": text, "kind": kind} for text in texts]}


def verdict(correct: bool = False, score: float = 0.5, reason: str = "one circle") -> dict:
    """Return a verifier's reply to an image, for `CHECKLIST`: a share of `score` claims holds.

    Those of the highest numbers hold, so that the first one fails.
    """
    fail = 0 if correct else max(1, _CLAIMS - round(score * _CLAIMS))
    answers = {f"c{number}": number > fail for number in range(1, _CLAIMS + 1)}
    return answers | {"score": score, "reason": "" if correct else reason}


def proposal(*texts: str) -> dict:
    """Return a proposer's reply."""
    return {"negatives": [{"text": text, "kind": "untargeted"} for text in texts]}


CHECKLIST = checklist(*(f"claim {number}" for number in range(1, _CLAIMS + 1)))
CAPTION = {"caption": "One red circle on sand, under a grey sky." + " Nothing else is there." * 20}
RIGHT = verdict(correct=True, score=1.0)
FAILURE = {"error": "server on fire"}

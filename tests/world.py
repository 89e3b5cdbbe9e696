"""Stand-ins for the models of a run: one makes images, one ranks, one answers as agents.

What they give depends on what they are asked alone, so that a run that was stopped and went on ends
like one that was not. What agents answer is a rule of each room's own (`bench.world`,
`run.journal.world`), or a script (`ScriptedBackend`), whose replies are made here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from npc_local.backends.base import Reply, Request
from npc_local.core.errors import BackendError, GeneratorError
from npc_local.core.records import Render, Shot
from npc_local.run.components import Components


class Log:
    """A file that each call is appended to before it is answered."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, *words: object) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, (" | ".join(map(str, words)) + "\n").encode())
        os.close(descriptor)

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []


def no_log(*words: object) -> None:
    """Keep nothing."""


def colour(*words: object) -> tuple[int, int, int]:
    """Return a colour that depends on all of the words."""
    red, green, blue = hashlib.sha256(repr(words).encode()).digest()[:3]
    return red, green, blue


def flat(*colour: int) -> Image.Image:
    """Return an image of one colour."""
    return Image.new("RGB", (8, 8), colour)


class FakeGenerator:
    """Makes flat images whose colour is a hash of the shot; image `fail_at`, from 0, fails."""

    name = "fake"
    fallbacks: tuple[str, ...] = ()

    def __init__(
        self,
        log: Callable[..., None] = no_log,
        *,
        name: str | None = None,
        fail_at: int | None = None,
        fallbacks: Sequence[str] | None = None,
    ) -> None:
        self.log, self.name, self.fail_at = log, name or self.name, fail_at
        self.fallbacks = self.fallbacks if fallbacks is None else tuple(fallbacks)
        self.shots: list[Shot] = []

    def generate(self, shot: Shot, on_step: object = None) -> Render:
        if len(self.shots) == self.fail_at:
            raise GeneratorError("power cut")
        self.log("generate", shot.prompt, shot.negative, shot.seed)
        self.shots.append(shot)
        return Render(self.paint(shot), self.forwards(shot), 0.25, fallbacks=self.fallbacks)

    def paint(self, shot: Shot) -> Image.Image:
        return flat(*colour(shot.prompt, shot.negative, shot.seed))

    def forwards(self, shot: Shot) -> int:
        return 10

    def fingerprint(self) -> str:
        return self.name


class FakeScorer:
    """Gives each negative the score it is told to; 0 to the others."""

    def __init__(
        self, log: Callable[..., None] = no_log, *, name: str = "fake", **scores: float
    ) -> None:
        self.log, self.name, self.scores = log, name, scores
        self.asked: list[tuple[str, list[str]]] = []

    def accepts(self, prompt: str) -> None:
        pass

    def score(self, prompt: str, negatives: Sequence[str]) -> list[float]:
        self.log("rank", prompt, *negatives)
        self.asked.append((prompt, list(negatives)))
        return [self.salience(prompt, negative) for negative in negatives]

    def salience(self, prompt: str, negative: str) -> float:
        return self.scores.get(negative, 0.0)

    def fingerprint(self) -> str:
        return self.name


class HashScorer(FakeScorer):
    """Ranks by a hash of prompt and negative."""

    def salience(self, prompt: str, negative: str) -> float:
        return colour(prompt, negative)[0] / 255


class FakeBackend:
    """Answers each role by the method named after it; `fails` names requests that end in an error.

    Such a method takes the request and the colour of its image, None without one.
    """

    claims = 3

    def __init__(
        self,
        log: Callable[..., None] = no_log,
        *,
        name: str = "agents",
        fails: Callable[[Request], bool] = lambda request: False,
    ) -> None:
        self.log, self.name, self.fails = log, name, fails
        self.asked: Counter[str] = Counter()

    async def complete(self, request: Request) -> Reply:
        self.asked[request.role] += 1
        if self.fails(request):
            await asyncio.sleep(0)
            self.log("failed", request.role)
            raise BackendError("server on fire")
        pixel = request.images[0].getpixel((0, 0)) if request.images else None
        self.log(request.role, json.dumps(request.fields, sort_keys=True), pixel)
        await asyncio.sleep(0)
        data = getattr(self, f"_{request.role}")(request, pixel)
        return Reply(data, json.dumps(data), {"prompt_tokens": 10, "completion_tokens": 3})

    def _checklist(self, request, pixel):
        return checklist(*(f"claim {number}" for number in range(1, self.claims + 1)))

    def _caption(self, request, pixel):
        return {"caption": f"A flat colour, {pixel}. " + "Nothing else is there. " * 20}

    def accepts(self, prompt: str) -> None:
        pass

    async def check(self) -> None:
        pass

    def fingerprint(self) -> str:
        return self.name

    async def aclose(self) -> None:
        pass


def components_of(generator, agents, scorer=None, **parts) -> Components:
    """Return components with the same agents in all roles."""
    return Components(generator, agents, agents, agents, scorer or FakeScorer(), **parts)


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


def proposal(*texts: str, kind: str = "untargeted") -> dict:
    """Return a proposer's reply."""
    return {"negatives": [{"text": text, "kind": kind} for text in texts]}


CHECKLIST = checklist(*(f"claim {number}" for number in range(1, _CLAIMS + 1)))
CAPTION = {"caption": "One red circle on sand, under a grey sky." + " Nothing else is there." * 20}
RIGHT = verdict(correct=True, score=1.0)
FAILURE = {"error": "server on fire"}

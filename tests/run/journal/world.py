"""A small deterministic world for runs that are killed and resumed; every call leaves a line.

Generator and agents answer from what they are asked alone, so that a run that was killed and went
on must end like one that was not.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from pathlib import Path

from PIL import Image

from npc_local.agents import Rules
from npc_local.backends.base import Reply
from npc_local.core.records import Render
from npc_local.loop import correct
from npc_local.run.components import Components
from npc_local.run.journal.journal import Journal
from npc_local.run.output.result_folder import verdict_data
from npc_local.run.stages import Stages

PROMPTS = ("two red circles", "three blue stars")
IDENTITY = {"generator": {"steps": 20}, "fingerprints": ["images", "agents"]}
RIGHT_NEGATIVE = {PROMPTS[0]: "sky", PROMPTS[1]: "sand"}


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


def _colour(*words: object) -> tuple[int, int, int]:
    return tuple(hashlib.sha256(repr(words).encode()).digest()[:3])


class Images:
    """Makes images whose colour is a hash of the shot."""

    def __init__(self, log: Log, name: str = "images") -> None:
        self.log, self.name = log, name

    def generate(self, shot, on_step=None):
        self.log("generate", shot.prompt, shot.negative, shot.seed)
        image = Image.new("RGB", (8, 8), _colour(shot.prompt, shot.negative, shot.seed))
        return Render(image, forwards=10, seconds=0.25, fallbacks=("tiled VAE",))

    def fingerprint(self) -> str:
        return self.name


class Scores:
    """Ranks by a hash of the text."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def accepts(self, prompt):
        pass

    def score(self, prompt, negatives):
        self.log("rank", prompt, *negatives)
        return [_colour(negative)[0] / 255 for negative in negatives]

    def fingerprint(self) -> str:
        return "scores"


class Agents:
    """Finds an image correct if its colour is that of the prompt's one right negative."""

    name = "agents"

    def __init__(self, log: Log, seed: int = 7) -> None:
        self.log, self.seed = log, seed

    async def complete(self, request):
        pixel = request.images[0].getpixel((0, 0)) if request.images else None
        self.log(request.role, json.dumps(request.fields, sort_keys=True), pixel)
        await asyncio.sleep(0)
        data = getattr(self, f"_{request.role}")(request, pixel)
        return Reply(data, json.dumps(data), {"prompt_tokens": 10, "completion_tokens": 3})

    def _checklist(self, request, pixel):
        return {"claims": [{"text": f"claim {n}", "kind": "object"} for n in (1, 2)]}

    def _verify(self, request, pixel):
        prompt = request.fields["prompt"]
        right = pixel == _colour(prompt, RIGHT_NEGATIVE[prompt], self.seed)
        return {"c1": True, "c2": right, "reason": "" if right else "no second", "score": 0.5}

    def _caption(self, request, pixel):
        return {"caption": f"A flat colour, {pixel}. " + "Nothing else is there. " * 20}

    def _propose(self, request, pixel):
        texts = ("sand", "sky", "sea")
        kind = request.fields["kinds"][-1]
        return {"negatives": [{"text": text, "kind": kind} for text in texts]}

    def accepts(self, prompt: str) -> None:
        pass

    async def check(self) -> None:
        pass

    def fingerprint(self) -> str:
        return "agents"

    async def aclose(self) -> None:
        pass


def cast_of(log: Log, **parts) -> Components:
    agents = parts.pop("agents", None) or Agents(log)
    generator = parts.pop("generator", None) or Images(log)
    return Components(
        generator, agents, agents, agents, Scores(log), **({"rules": Rules()} | parts)
    )


def summary(correction) -> dict:
    """Return all of a correction that a resumed run must have as well."""
    attempts = ([correction.original] if correction.original else []) + [*correction.attempts]
    return {
        "status": correction.status,
        "error": correction.error,
        "caption": correction.caption and correction.caption.text,
        "candidates": [(one.negative.text, one.score) for one in correction.candidates],
        "forwards": correction.forwards,
        "attempts": [
            (
                attempt.render.image.tobytes().hex(),
                attempt.render.forwards,
                attempt.render.seconds,
                attempt.render.fallbacks,
                verdict_data(attempt.verdict),
            )
            for attempt in attempts
        ],
    }


async def search_all(stages: Stages, prompts=PROMPTS, seed: int = 7) -> list[dict]:
    """Run all prompts at once."""

    async def search(prompt):
        with stages.search():
            return summary(await correct(prompt, stages, seed=seed, candidates=3))

    return await asyncio.gather(*map(search, prompts))


def run(directory: Path, log: Log, prompts=PROMPTS) -> list[dict]:
    """Begin a run in `directory`, or go on with it."""
    with Journal.open(directory, IDENTITY) as journal:
        return asyncio.run(search_all(Stages(cast_of(log), journal, agents=2), prompts))

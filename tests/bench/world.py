"""A small deterministic world for benchmarks: what is asked determines what is answered.

An image is a flat colour, a hash of its shot. Whether it is right is decided by its colour alone,
so that an arm that comes back to a shot finds what it found before.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable

from PIL import Image

from npc_local.backends.base import Reply
from npc_local.core.errors import BackendError, GeneratorError
from npc_local.core.records import Render
from npc_local.run.components import Components

NEGATIVES = {"targeted": ("one leg", "two heads"), "untargeted": ("sky", "sand", "sea")}


def colour(*words: object) -> tuple[int, int, int]:
    """Return a colour that depends on all of the words."""
    red, green, blue = hashlib.sha256(repr(words).encode()).digest()[:3]
    return red, green, blue


class Images:
    """Makes flat images; fails where it is told to, or with the n-th one."""

    def __init__(self, *, limit: int | None = None, name: str = "images") -> None:
        self.shots = []
        self.limit, self.name = limit, name

    def generate(self, shot, on_step=None):
        if len(self.shots) == self.limit:
            raise GeneratorError("power cut")
        self.shots.append(shot)
        image = Image.new("RGB", (8, 8), colour(shot.prompt, shot.negative, shot.seed))
        return Render(image, forwards=12 if shot.negative else 10, seconds=0.25)

    def fingerprint(self) -> str:
        return self.name


class Scores:
    """Ranks by a hash of prompt and negative."""

    def accepts(self, prompt):
        pass

    def score(self, prompt, negatives):
        return [colour(prompt, negative)[0] / 255 for negative in negatives]

    def fingerprint(self) -> str:
        return "scores"


class Agents:
    """All roles and the judge. `fails` names requests that end in an error."""

    def __init__(
        self, name: str = "agents", fails: Callable[[object], bool] = lambda request: False
    ) -> None:
        self.name, self.fails = name, fails
        self.asked: Counter[str] = Counter()
        self.prompts: Counter[tuple[str, str]] = Counter()

    async def complete(self, request):
        self.asked[request.role] += 1
        await asyncio.sleep(0)
        if self.fails(request):
            raise BackendError(f"{self.name}: {request.role}: server on fire")
        red, green, blue = request.images[0].getpixel((0, 0)) if request.images else (0, 0, 0)
        data = getattr(self, f"_{request.role}")(request, red, green, blue)
        return Reply(data, json.dumps(data), {"prompt_tokens": 10, "completion_tokens": 3})

    def _checklist(self, request, red, green, blue):
        return {"claims": [{"text": f"claim {n}", "kind": "object"} for n in (1, 2, 3)]}

    def _verify(self, request, red, green, blue):
        right = red < 80
        claims = {"c1": True, "c2": right or green < 128, "c3": right}
        return claims | {"score": 0.5, "reason": "" if right else f"too red: {red}"}

    def _caption(self, request, red, green, blue):
        text = f"A flat colour, {red} {green} {blue}. " + "Nothing else is there. " * 20
        return {"caption": text}

    def _propose(self, request, red, green, blue):
        kinds = request.fields["kinds"]
        found = [(text, kind) for kind in kinds for text in NEGATIVES[kind]]
        if "caption" not in request.fields:
            found = [(f"{text} prints", kind) for text, kind in found]
        return {"negatives": [{"text": text, "kind": kind} for text, kind in found]}

    def _judge(self, request, red, green, blue):
        if "correct" in request.shape.model_fields:
            return {"correct": int(red < 100), "reason": ""}
        grades = {"fulfilment": red * 10 // 255, "identity": green * 10 // 255}
        return grades | {"aesthetics": blue * 10 // 255, "reason": ""}

    def accepts(self, prompt: str) -> None:
        pass

    async def check(self) -> None:
        pass

    def fingerprint(self) -> str:
        return self.name

    async def aclose(self) -> None:
        pass


def components_of(generator: Images, agents: Agents, judge: Agents | None = None) -> Components:
    """Return components with the same agents in all roles, and a judge."""
    return Components(generator, agents, agents, agents, Scores(), judge=judge or agents)

"""A generator, agents and a scorer that only take time, and a GPU that they may have to share.

How long each takes is known, so that a schedule can be measured against what no schedule can beat.
Which prompts fail, and at which attempt they are corrected, is drawn with the paper's frequencies.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from PIL import Image

from npc_local.backends.base import Reply, Request
from npc_local.core.records import Render, Shot
from npc_local.generator.base import OnStep
from npc_local.run.components import Components
from npc_local.run.gpu_sharing import GpuSharing, Tenant

CANDIDATES = 5
_FAILS = 0.63  # of the original images (paper, GenEval++)
_PASSES = 0.355  # of the attempts, which makes 2.5 of them on average
_WORDS = "Nothing else is in the picture. " * 20


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds of each step, and of a swap of models on a shared GPU.

    The proportions are estimates for FLUX.1-dev and a 32B vision-language model on one H200.
    """

    image: float = 6.6
    checklist: float = 1.05
    verify: float = 1.2
    caption: float = 3.6
    propose: float = 1.05
    rank: float = 0.01
    swap: float = 10.0

    def scaled(self, image: float) -> Durations:
        """Return the same proportions for images of `image` seconds."""
        factor = image / self.image
        return Durations(*(factor * getattr(self, name) for name in self.__slots__))


@dataclass
class SimulatedModels:
    """All of a profile's models in one: what they were asked for, how often, how many at once.

    Attributes:
        calls: steps by name, swaps included.
        most_agents: the most steps of agents that were under way at once.
    """

    durations: Durations
    name: str = "simulated"
    calls: Counter[str] = field(default_factory=Counter)
    most_agents: int = 0
    _agents: int = 0

    def components(self, *, phased: bool) -> Components:
        """Return them, with the models of all of them resident or taking turns."""
        sharing = None
        if phased:
            images, agents = (Tenant(name, self._swap, _nothing) for name in ("images", "agents"))
            sharing = GpuSharing(images, agents, frozenset({self.name}))
        return Components(self, self, self, self, self, gpu_sharing=sharing)

    def seconds(self, *names: str) -> float:
        """Return how long the named steps took in all, one after the other; none: every one."""
        each = asdict(self.durations)
        return sum((self.calls[name] * each[name] for name in names or self.calls), 0.0)

    def generate(self, shot: Shot, on_step: OnStep | None = None) -> Render:
        """Take the time of an image; its red value is the rank of its negative, from 1.

        No two prompts have the same image, which would be described once.
        """
        self._spend("image")
        rank = 0 if shot.negative is None else int(shot.negative.split()[-1])
        high, low = divmod(int(shot.prompt.split()[1]), 256)
        image = Image.new("RGB", (8, 8), (rank, high % 256, low))
        return Render(image, forwards=50, seconds=self.durations.image)

    def score(self, prompt: str, negatives: Sequence[str]) -> list[float]:
        """Take the time of a ranking; the order stays as it is."""
        self._spend("rank")
        return [-float(index) for index in range(len(negatives))]

    def _spend(self, name: str) -> None:
        self.calls[name] += 1
        time.sleep(getattr(self.durations, name))

    async def complete(self, request: Request[Any]) -> Reply:
        """Take the time of an agent's answer, and give the one that the prompt's fate asks for."""
        self.calls[request.role] += 1
        self._agents += 1
        self.most_agents = max(self.most_agents, self._agents)
        try:
            await asyncio.sleep(getattr(self.durations, request.role))
        finally:
            self._agents -= 1
        return Reply(_ANSWERS[request.role](request), "")

    async def _swap(self) -> None:
        self.calls["swap"] += 1
        await asyncio.sleep(self.durations.swap)

    def accepts(self, prompt: str) -> None:
        """Take any prompt of `prompts`."""

    async def check(self) -> None:
        """Always ready."""

    def fingerprint(self) -> str:
        """Return a constant."""
        return self.name

    async def aclose(self) -> None:
        """Nothing is held."""


def prompts(count: int) -> list[str]:
    """Return prompts that say at which image they are right: 0 the first; past the last, never."""
    fates = random.Random(0)
    named = []
    for number in range(count):
        right = 0
        if fates.random() < _FAILS:
            right = 1
            while right <= CANDIDATES and fates.random() >= _PASSES:
                right += 1
        named.append(f"prompt {number} right at {right}")
    return named


def images(prompt: str) -> int:
    """Return how many images a search for one of these prompts makes."""
    return 1 + min(int(prompt.split()[-1]), CANDIDATES)


def least_swaps(named: Sequence[str]) -> int:
    """Return the swaps of models that any schedule needs for these prompts on a shared GPU.

    The longest search alone needs them: the checklist, then for each image a turn of the generator
    and one of the agents. All others fit into its turns.
    """
    return 1 + 2 * max(map(images, named))


def _verify(request: Request[Any]) -> dict[str, Any]:
    pixel = request.images[0].getpixel((0, 0))
    assert isinstance(pixel, tuple)
    right = int(request.fields["prompt"].split()[-1]) == pixel[0]
    return {"c1": right, "score": 1.0, "reason": "" if right else "it is wrong"}


def _propose(request: Request[Any]) -> dict[str, Any]:
    texts = [f"thing number {rank}" for rank in range(1, CANDIDATES + 1)]
    return {"negatives": [{"text": text, "kind": "untargeted"} for text in texts]}


async def _nothing() -> None:
    """Leave without taking time: entering has the time of a swap."""


_ANSWERS = {
    "checklist": lambda request: {"claims": [{"text": "it is right", "kind": "object"}]},
    "verify": _verify,
    "caption": lambda request: {"caption": _WORDS},
    "propose": _propose,
}

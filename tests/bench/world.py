"""A small deterministic world for benchmarks: what is asked determines what is answered.

An image is a flat colour, a hash of its shot. Whether it is right is decided by its colour alone,
so that an arm that comes back to a shot finds what it found before.
"""

from __future__ import annotations

from npc_local.run.components import Components
from tests import world
from tests.world import FakeBackend, FakeGenerator, HashScorer

NEGATIVES = {"targeted": ("one leg", "two heads"), "untargeted": ("sky", "sand", "sea")}


class Images(FakeGenerator):
    """Has more to do where there is a negative prompt."""

    def forwards(self, shot):
        return 12 if shot.negative else 10


class Agents(FakeBackend):
    """All roles and the judge."""

    def _verify(self, request, pixel):
        red, green, _ = pixel
        right = red < 80
        claims = {"c1": True, "c2": right or green < 128, "c3": right}
        return claims | {"score": 0.5, "reason": "" if right else f"too red: {red}"}

    def _propose(self, request, pixel):
        kinds = request.fields["kinds"]
        proposed = [(text, kind) for kind in kinds for text in NEGATIVES[kind]]
        if "caption" not in request.fields:
            proposed = [(f"{text} prints", kind) for text, kind in proposed]
        return {"negatives": [{"text": text, "kind": kind} for text, kind in proposed]}

    def _judge(self, request, pixel):
        red, green, blue = pixel
        if "correct" in request.shape.model_fields:
            return {"correct": int(red < 100), "reason": ""}
        grades = {"fulfilment": red * 10 // 255, "identity": green * 10 // 255}
        return grades | {"aesthetics": blue * 10 // 255, "reason": ""}


def components_of(generator, agents, judge=None, scorer=None) -> Components:
    """Return components with the same agents in all roles, and a judge."""
    judge, scorer = judge or agents, scorer or HashScorer()
    return world.components_of(generator, agents, scorer, judge=judge)

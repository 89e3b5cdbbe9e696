"""Each role asked by itself, of a script: what it made of the replies, and what it asked."""

from __future__ import annotations

import asyncio

from PIL import Image

from npc_local import agents
from npc_local.agents import Rules
from npc_local.backends.scripted import ScriptedBackend
from npc_local.core.errors import PromptError
from npc_local.core.records import Caption, Checklist, Demand

IMAGE = Image.new("RGB", (4, 4))
CLAIMS = Checklist((Demand("two circles", "count"), Demand("red circles", "colour")))
WRONG = {"c1": False, "c2": True, "reason": "one circle", "score": 0.5}
RIGHT = {"c1": True, "c2": True, "reason": "", "score": 1.0}
PHRASES = ("sand", "sea", "sky", "fog", "snow", "mud")


class Narrow(ScriptedBackend):
    """Takes no word from outside its world, and so no negative prompt from the fallback list."""

    def accepts(self, prompt):
        raise PromptError("unknown")


def list_claims(reply, prompt="two red circles"):
    backend = ScriptedBackend("agent", {"checklist": [reply]})
    return asyncio.run(agents.checklist(backend, prompt)), backend.requests


def verify(*replies, prompt="two red circles", claims=CLAIMS, **rules):
    backend = ScriptedBackend("agent", {"verify": replies})
    rules = Rules(**{"votes": len(replies)} | rules)
    return asyncio.run(agents.verify(backend, prompt, claims, IMAGE, rules)), backend.requests


def describe(*captions):
    backend = ScriptedBackend("agent", {"caption": [{"caption": text} for text in captions]})
    return asyncio.run(agents.describe(backend, IMAGE)), backend.requests


def propose(*replies, prompt="two red circles", reason="one circle", count=5, **options):
    kind = options.pop("backend", Narrow)
    backend = kind("agent", {"propose": replies})
    options = {"caption": Caption("one red circle on sand"), "mode": "caption"} | options
    work = agents.propose(backend, prompt, options["caption"], reason, count, options["mode"])
    return asyncio.run(work), backend.requests


def negatives(*texts, kind="targeted"):
    return {"negatives": [{"text": text, "kind": kind} for text in texts]}


def answers(*holds, reason="", score=1.0):
    numbered = {f"c{number}": holds_it for number, holds_it in enumerate(holds, start=1)}
    return numbered | {"reason": reason, "score": score}

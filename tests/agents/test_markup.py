"""That no agent is asked for what markup of other tools says."""

from __future__ import annotations

import asyncio

from PIL import Image

from npc_local import agents
from npc_local.backends.scripted import ScriptedBackend
from npc_local.core.records import Caption, Checklist, Demand

PROMPT = "three clocks, <lora:add_detail:0.8> (on a wall:1.2) --ar 16:9 --no text"
SAID = "three clocks, on a wall"
CLAIMS = {"claims": [{"text": "three clocks", "kind": "count"}]}
VERDICT = {"c1": True, "reason": "", "score": 1.0}
NEGATIVES = {"negatives": [{"text": "text", "kind": "untargeted"}]}


def asked(backend):
    [request] = backend.requests
    assert "lora" not in request.user
    return request.fields["prompt"]


def test_the_checklist_is_made_of_the_words():
    backend = ScriptedBackend("agent", {"checklist": [CLAIMS]})
    asyncio.run(agents.checklist(backend, PROMPT))
    assert asked(backend) == SAID


def test_a_verdict_is_about_the_words():
    backend = ScriptedBackend("agent", {"verify": [VERDICT]})
    claims = Checklist((Demand("three clocks", "count"),))
    asyncio.run(agents.verify(backend, PROMPT, claims, Image.new("RGB", (4, 4))))
    assert asked(backend) == SAID


def test_the_proposer_reads_the_words_and_may_name_what_they_rule_out():
    backend = ScriptedBackend("agent", {"propose": [NEGATIVES]})
    proposal = asyncio.run(agents.propose(backend, PROMPT, Caption("A room."), "too few", 1))
    assert asked(backend) == SAID
    assert [negative.text for negative in proposal.negatives] == ["text"]

"""Each arm: what it makes, when it stops, what it costs, and that all share the base image."""

from __future__ import annotations

import asyncio

import pytest

from npc_local.backends.scripted import ScriptedBackend
from npc_local.bench.arms import ARMS, run_arms
from npc_local.errors import BackendError, NpcError, PromptError
from npc_local.loop import Cast
from tests.fakes import (
    CAPTION,
    CHECKLIST,
    FAILURE,
    RIGHT,
    FakeGenerator,
    FakeScorer,
    proposal,
    verdict,
)

PROMPT = "two circles"
WRONG = verdict()


class Narrow(ScriptedBackend):
    """Serves one prompt only, and so takes no negative prompt from the fallback list."""

    def accepts(self, prompt):
        if prompt != PROMPT:
            raise PromptError("unknown")


def play(verdicts, *, negatives=("sand", "sky"), arms=tuple(ARMS), budget=2):
    """Run arms with scripted agents; return the outcomes and the shots that were made."""
    replies = {
        "checklist": [CHECKLIST],
        "verify": list(verdicts),
        "caption": [CAPTION],
        "propose": [proposal(*negatives)] * 2,
    }
    agents = Narrow("agents", replies)
    generator = FakeGenerator()
    cast = Cast(generator, agents, agents, agents, FakeScorer(sky=1.0))
    outcomes = asyncio.run(run_arms(PROMPT, 7, cast, arms, budget))
    return outcomes, generator.shots


def test_a_correct_base_image_costs_no_arm_anything():
    outcomes, shots = play([RIGHT])
    assert all(outcome.correct and not outcome.tries for outcome in outcomes.values())
    assert len(shots) == 1


def test_every_arm_stops_at_its_first_correct_image():
    # base wrong; npc: wrong, right; reseed: right; npc+reseed: wrong, right
    outcomes, shots = play([WRONG, WRONG, RIGHT, RIGHT, WRONG, RIGHT])
    assert {arm: o.correct for arm, o in outcomes.items()} == {
        "base": False,
        "npc": True,
        "reseed": True,
        "npc+reseed": True,
    }
    assert [len(outcomes[arm].tries) for arm in ARMS] == [0, 2, 1, 2]
    assert [outcomes[arm].forwards for arm in ARMS] == [0, 20, 10, 20]
    assert len(shots) == 6


def test_npc_keeps_the_seed_and_ranks_and_reseed_has_neither():
    _, shots = play([WRONG] * 7)
    base, *others = shots
    npc, reseed, both = others[:2], others[2:4], others[4:]
    assert (base.negative, base.seed) == (None, 7)
    assert [(shot.negative, shot.seed) for shot in npc] == [("sky", 7), ("sand", 7)]
    assert [shot.negative for shot in reseed] == [None, None]
    assert [shot.negative for shot in both] == ["sky", "sand"]
    assert len({7, *(shot.seed for shot in reseed)}) == 3
    # The same new seeds, so that these two arms differ in the negative alone.
    assert [shot.seed for shot in reseed] == [shot.seed for shot in both]


def test_no_candidates_leave_npc_without_tries():
    outcomes, _ = play([WRONG, WRONG, WRONG], negatives=())
    assert outcomes["npc"].tries == ()
    assert outcomes["npc+reseed"].tries == ()
    assert len(outcomes["reseed"].tries) == 2


def test_an_error_is_no_outcome():
    for verdicts in ([FAILURE], [WRONG, FAILURE], [WRONG, WRONG, WRONG, FAILURE]):
        with pytest.raises(NpcError, match="server on fire") as caught:
            play(verdicts)
        assert caught.value.exit_code == BackendError.exit_code

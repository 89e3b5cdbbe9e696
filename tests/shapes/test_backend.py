from __future__ import annotations

import asyncio
import random
import subprocess
import sys

import pytest
from PIL import Image
from pydantic import BaseModel

from npc_local import agents as roles
from npc_local.backends.base import Request
from npc_local.core.config.settings import ShapesBackendSettings
from npc_local.core.errors import BackendError, PromptError
from npc_local.core.records import Caption, Checklist, Claim, Demand
from npc_local.run.factory import open_backend
from npc_local.shapes.backend import ShapesBackend
from npc_local.shapes.claims import check, demands
from npc_local.shapes.detect import detect
from npc_local.shapes.draw import draw
from npc_local.shapes.prompts import sample_records
from npc_local.shapes.reading import read
from npc_local.shapes.scene import Background, Scene, sample_scene
from npc_local.shapes.wording import vocabulary
from tests.shapes.test_claims import scene, thing

AGENT = ShapesBackend("shapes")


def verify(prompt, picture):
    async def judge():
        claims = await roles.checklist(AGENT, prompt)
        return await roles.verify(AGENT, prompt, claims, picture)

    return asyncio.run(judge())


def describe(picture):
    return asyncio.run(roles.describe(AGENT, picture))


def propose(prompt, caption, reason="expected one star, found none", count=5, mode="caption"):
    work = roles.propose(AGENT, prompt, caption, reason, count, mode)
    return asyncio.run(work).negatives


WRONG = draw(
    scene(
        *(thing("red circle", place) for place in ("left", "top", "right")),
        thing("green star", "bottom"),
    )
)


def test_a_right_picture():
    rng = random.Random(0)
    for record in sample_records(3, seed=0):
        verdict = verify(record.prompt, draw(sample_scene(record.groups, rng)))
        assert (verdict.correct, verdict.score, verdict.reason) == (True, 1.0, "")
        assert all(claim.holds for claim in verdict.claims)


def test_a_wrong_picture():
    verdict = verify("a photo of two circles", WRONG)
    assert not verdict.correct
    assert verdict.score == 0.0
    assert verdict.reason == "expected two circles, found three; an extra green star"
    assert verdict.claims == (
        Claim("two circles", False, "count"),
        Claim("nothing else", False, "other"),
    )
    assert verdict.model_score == verdict.score


def test_the_score_is_the_share_of_claims_that_hold():
    assert verify("three red circles", WRONG).score == pytest.approx(2 / 3)


def test_the_whole_loop_s_words():
    prompt = "a photo of two red circles"
    reason = verify(prompt, WRONG).reason
    caption = describe(WRONG)
    assert caption.text.startswith("The picture shows three red circles and a green star on a ")
    negatives = propose(prompt, caption, reason, count=9)
    kinds = {negative.text: negative.kind for negative in negatives}
    for text in ("a green star", "three red circles", "three circles and one star"):
        assert kinds[text] == "targeted"
    assert kinds["a white background"] == "untargeted"
    assert propose(prompt, caption, reason, count=3) == negatives[:3]


def test_answers_are_deterministic():
    assert verify("two circles", WRONG) == verify("two circles", WRONG)
    assert describe(WRONG) == describe(WRONG.copy())
    assert propose("a star", describe(WRONG)) == propose("a star", describe(WRONG))


def test_an_enlarged_picture_gets_the_same_answers():
    large = WRONG.resize((512, 512), Image.Resampling.NEAREST)
    assert verify("two circles", large) == verify("two circles", WRONG)


@pytest.mark.parametrize("picture", [Image.new("RGB", (64, 64)), Image.new("L", (1, 1))])
def test_garbage_is_judged_not_crashed_on(picture):
    assert not verify("two red circles", picture).correct
    assert 90 <= len(describe(picture).text.split()) <= 160
    assert propose("two red circles", describe(picture))


def test_unknown_words_are_the_prompt_s_fault():
    for ask in (verify, propose):
        with pytest.raises(PromptError, match="'clocks', 'cat'"):
            ask("three clocks and one cat", WRONG if ask is verify else describe(WRONG))


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("three clocks and one cat", "'clocks', 'cat'"),
        ("2 circles", "has not learned '2'; write 'two circles'"),
        ("seven circles", "room for 6"),
    ],
)
def test_a_prompt_it_can_never_serve_is_not_accepted(prompt, said):
    with pytest.raises(PromptError, match=said) as caught:
        AGENT.accepts(prompt)
    assert vocabulary() in str(caught.value)


def test_benchmark_prompts_are_accepted():
    for record in sample_records(3, seed=0):
        AGENT.accepts(record.prompt)


def test_another_captioner_s_words_are_not_the_prompt_s_fault():
    with pytest.raises(BackendError, match="captioner and proposer"):
        propose("two circles", Caption("Three circles, seen by someone else."))


def test_the_checklist_is_of_the_prompt_alone():
    prompt = "one larger red circle on the left and two stars on a striped pink background"
    found = asyncio.run(roles.checklist(AGENT, prompt))
    assert [(demand.text, demand.kind) for demand in found.demands] == [
        ("one circle", "count"),
        ("one red circle", "colour"),
        ("circle on the left", "relation"),
        ("larger circle", "size"),
        ("two stars", "count"),
        ("nothing else", "other"),
        ("pink background", "other"),
        ("striped background", "other"),
    ]


def test_the_checklist_and_the_findings_are_the_same_claims():
    rng = random.Random(1)
    for record in sample_records(5, seed=2):
        seen = sample_scene(rng.choice(sample_records(1, seed=rng.random())).groups, rng)
        reading = read(record.prompt)
        found = [(finding.claim, finding.kind) for finding in check(reading, seen)]
        assert found == list(demands(reading))


def test_claims_that_read_alike_are_kept_apart():
    prompt = "a larger red circle on the left and a larger red circle on the right"
    verdict = verify(prompt, WRONG)
    truth = [finding.holds for finding in check(read(prompt), detect(WRONG))]
    assert [claim.holds for claim in verdict.claims] == truth
    assert len({claim.text for claim in verdict.claims}) < len(verdict.claims)


def test_some_of_its_claims_may_be_asked_for():
    known = Checklist((Demand("two circles", "count"),))
    verdict = asyncio.run(roles.verify(AGENT, "two circles", known, WRONG))
    assert verdict.claims == (Claim("two circles", False, "count"),)
    assert verdict.reason == "expected two circles, found three"


def test_claims_of_others_are_not_guessed_at():
    known = Checklist((Demand("the circles look happy"),))
    with pytest.raises(BackendError, match="verify: cannot check the claim 'the circles look"):
        asyncio.run(roles.verify(AGENT, "two circles", known, WRONG))


@pytest.mark.parametrize("kind", ["targeted", "untargeted"])
def test_one_kind_of_candidates(kind):
    prompt = "a photo of two red circles"
    both = propose(prompt, describe(WRONG), count=20)
    only = propose(prompt, describe(WRONG), count=20, mode=f"{kind}-only")
    assert only == tuple(negative for negative in both if negative.kind == kind) != ()


def test_candidates_from_the_prompt_alone():
    found = propose("two red circles and a star", None, "", mode="prompt-only")
    assert [(negative.text, negative.kind) for negative in found] == [
        ("three red circles", "targeted"),
        ("a red circle", "targeted"),
        ("two yellow circles", "targeted"),
        ("a striped background", "untargeted"),
        ("a dotted background", "untargeted"),
    ]


def test_nothing_is_made_up_where_it_has_too_few():
    picture = draw(Scene((), Background("mint", "striped")))
    found = asyncio.run(roles.propose(AGENT, "a star", describe(picture), "no star", 5))
    assert [negative.fallback for negative in found.negatives] == [False]
    assert found.rejected == ()


@pytest.mark.parametrize("role", ["verify", "caption"])
def test_a_missing_image(role):
    request = Request(role, {"prompt": "a star", "claims": {}}, system="", user="", shape=BaseModel)
    with pytest.raises(BackendError, match=f"{role}: needs an image"):
        asyncio.run(AGENT.complete(request))


def test_it_opens_through_the_same_door_as_any_backend():
    backend = open_backend("agents", ShapesBackendSettings(kind="shapes"))
    assert isinstance(backend, ShapesBackend)
    assert backend.name == "agents"
    asyncio.run(backend.check())
    asyncio.run(backend.aclose())
    assert backend.fingerprint() == AGENT.fingerprint()


def test_the_fingerprint_names_all_code_that_the_answers_come_from():
    """Every module of the shapes world that the backend imports, directly or not."""
    code = (
        "import sys, asyncio; from npc_local.shapes.backend import ShapesBackend, _CODE;"
        "import npc_local.shapes.claims, npc_local.shapes.caption, npc_local.shapes.detect;"
        "import npc_local.shapes.propose, npc_local.shapes.wording;"
        "names = {name for name in sys.modules if name.startswith('npc_local.shapes.')};"
        "print(*sorted(names - {'npc_local.shapes.' + p[7:-3] for p in _CODE}))"
    )
    left_out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert left_out.stdout.split() == []


def test_the_fingerprint_changes_with_the_code(monkeypatch):
    before = AGENT.fingerprint()
    monkeypatch.setattr("npc_local.shapes.backend._CODE", ("shapes/draw.py",))
    assert AGENT.fingerprint() != before


def test_an_empty_picture():
    picture = draw(Scene((), Background("mint", "striped")))
    assert verify("a star", picture).reason == "expected one star, found none"
    negatives = propose("a star", describe(picture))
    assert [n.text for n in negatives] == ["a striped mint background"]

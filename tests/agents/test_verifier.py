"""The verifier: what it is asked and shown, and what it makes of the answers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_local.agents.verifier import MAX_CLAIMS
from npc_local.backends.schemas import json_schema
from npc_local.core.errors import BackendError
from npc_local.core.records import Checklist, Claim, Demand, Verdict
from tests.agents.asking import IMAGE, RIGHT, WRONG, answers, list_claims, verify


def test_the_checklist_comes_from_the_prompt_alone():
    reply = {"claims": [{"text": " two circles ", "kind": "count"}, {"text": "x", "kind": "style"}]}
    found, (request,) = list_claims(reply)
    assert found == Checklist((Demand("two circles", "count"), Demand("x", "style")))
    assert (request.role, request.fields, request.images) == (
        "checklist",
        {"prompt": "two red circles"},
        (),
    )


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ({}, "claims"),
        ({"claims": []}, "claims"),
        ({"claims": [{"text": "x", "kind": "object"}] * (MAX_CLAIMS + 1)}, "claims"),
        ({"claims": ["x"]}, "claims.0"),
        ({"claims": [{"text": " ", "kind": "object"}]}, "claims.0.text"),
        ({"claims": [{"text": "x"}]}, "claims.0.kind"),
        ({"claims": [{"text": "x", "kind": "mood"}]}, "claims.0.kind"),
        ({"claims": [{"text": "x", "kind": "object", "holds": True}]}, "claims.0.holds"),
        ({"claims": [{"text": "x", "kind": "object"}], "correct": True}, "correct"),
    ],
)
def test_an_invalid_checklist_is_an_error(reply, fault):
    with pytest.raises(BackendError, match=f"backend agent: checklist: invalid reply: {fault}"):
        list_claims(reply)


def test_verdict():
    verdict, _ = verify(WRONG | {"reason": " one circle\n", "score": 0.7})
    assert verdict == Verdict(
        False,
        0.5,
        "one circle",
        (Claim("two circles", False, "count"), Claim("red circles", True, "colour")),
        model_score=0.7,
    )


def test_a_correct_verdict_has_no_reason():
    verdict, _ = verify(RIGHT | {"reason": "all fine"})
    assert (verdict.correct, verdict.score, verdict.reason) == (True, 1.0, "")


def test_the_verifier_gets_prompt_claims_and_image():
    _, (request,) = verify(WRONG, prompt="a $reason <b>cat</b>")
    assert request.role == "verify"
    assert request.fields == {
        "prompt": "a $reason <b>cat</b>",
        "claims": {"c1": "two circles", "c2": "red circles"},
    }
    assert '"a $reason <b>cat</b>"' in request.user
    assert '{"c1": "two circles", "c2": "red circles"}' in request.user
    assert request.images == (IMAGE,)
    assert request.sampling["temperature"] == 0
    assert list(json_schema(request.shape)["properties"]) == ["c1", "c2", "reason", "score"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"score": 1.01}, "score"),
        ({"score": -0.01}, "score"),
        ({"score": math.nan}, "score"),
        ({"score": "0.5"}, "score"),
        ({"score": None}, "score"),
        ({"score": True}, "score"),
        ({"c1": "false"}, "c1"),
        ({"c1": 0}, "c1"),
        ({"c1": None}, "c1"),
        ({"reason": None}, "reason"),
        ({"c3": True}, "c3"),
        ({"c01": True}, "c01"),
        ({"correct": True}, "correct"),
    ],
)
def test_an_invalid_verdict_is_an_error(change, fault):
    with pytest.raises(BackendError, match=f"backend agent: verify: invalid reply: {fault}: "):
        verify(WRONG | change)


@pytest.mark.parametrize("missing", ["score", "c1", "c2", "reason"])
def test_an_incomplete_verdict_is_an_error(missing):
    reply = {key: value for key, value in WRONG.items() if key != missing}
    with pytest.raises(BackendError, match=f"backend agent: verify: .*{missing}: Field required"):
        verify(reply)


def test_an_empty_checklist_judges_nothing():
    with pytest.raises(ValueError, match="empty checklist"):
        verify(RIGHT, claims=Checklist(()))


def test_the_model_s_own_opinion_cannot_make_an_image_correct():
    verdict, _ = verify(WRONG | {"score": 1.0, "reason": ""})
    assert (verdict.correct, verdict.score) == (False, 0.5)
    assert verdict.reason == "the image does not show: two circles"


KINDS = Checklist(
    (Demand("cat", "object"), Demand("two", "count"), Demand("left", "relation"), Demand("oil"))
)


@pytest.mark.parametrize(
    ("holds", "score", "correct"),
    [
        # strictness:                    strict, normal, lenient
        ((True, True, True, True), 1.0, (True, True, True)),
        ((True, True, True, True), 0.89, (False, True, True)),
        ((True, True, True, True), 0.9, (True, True, True)),
        ((True, True, False, True), 1.0, (False, False, True)),
        ((True, True, False, False), 0.0, (False, False, True)),
        ((True, False, True, True), 1.0, (False, False, False)),
        ((False, True, True, True), 1.0, (False, False, False)),
    ],
)
def test_strictness(holds, score, correct):
    for strictness, expected in zip(("strict", "normal", "lenient"), correct, strict=True):
        reply = answers(*holds, score=score)
        verdict, _ = verify(reply, claims=KINDS, strictness=strictness)
        assert verdict.correct is expected
        assert verdict.score == sum(holds) / 4
        assert bool(verdict.reason) is not expected


def test_lenient_without_objects_and_counts_wants_every_claim():
    claims = Checklist((Demand("oil painting", "style"), Demand("at night", "other")))
    assert not verify(answers(True, False), claims=claims, strictness="lenient")[0].correct
    assert verify(answers(True, True), claims=claims, strictness="lenient")[0].correct


def test_a_strict_no_says_why():
    doubt = answers(True, True, score=0.5)
    assert verify(doubt, strictness="strict")[0].reason == (
        "every claim holds, but the verifier scores the image only 0.50"
    )
    said = verify(doubt | {"reason": "one is cut off"}, strictness="strict")[0]
    assert said.reason == "one is cut off"


def test_votes_have_seeds_of_their_own_and_differ_in_nothing_else():
    _, requests = verify(WRONG, WRONG, WRONG)
    assert [request.sampling["seed"] for request in requests] == [0, 1, 2]
    assert requests[0].sampling["temperature"] == 0
    assert requests[1].sampling["temperature"] == requests[2].sampling["temperature"] > 0
    assert len({request.user for request in requests}) == 1
    assert all(
        replace(request, sampling=requests[0].sampling) == requests[0] for request in requests
    )


def test_each_claim_is_decided_by_its_own_majority():
    verdict, _ = verify(
        answers(True, False, reason="blue", score=0.2),
        answers(False, True, reason="one", score=0.4),
        answers(True, False, reason="green", score=0.6),
    )
    assert [claim.holds for claim in verdict.claims] == [True, False]
    assert verdict.reason == "blue"
    assert verdict.model_score == pytest.approx(0.4)


def test_a_tie_fails():
    verdict, _ = verify(answers(True, True), answers(True, False, reason="blue"))
    assert [claim.holds for claim in verdict.claims] == [True, False]
    assert (verdict.correct, verdict.reason) == (False, "blue")


def test_a_failed_vote_is_an_error_whatever_the_others_say():
    with pytest.raises(BackendError, match="verify: timeout"):
        verify(RIGHT, RIGHT, {"error": "timeout"})


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5))
def test_the_verdict_follows_from_the_votes(votes):
    verdict, _ = verify(*(answers(*holds) for holds in votes), claims=KINDS)
    for index, claim in enumerate(verdict.claims):
        assert claim.holds == (2 * sum(holds[index] for holds in votes) > len(votes))
    assert verdict.correct == all(claim.holds for claim in verdict.claims) == (not verdict.reason)
    assert verdict.score == sum(claim.holds for claim in verdict.claims) / 4


def test_a_backend_error_passes_through():
    with pytest.raises(BackendError, match="backend agent: verify: timeout"):
        verify({"error": "timeout"})

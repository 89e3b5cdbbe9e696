"""The three agents: what they are asked, what they are shown, and which replies are refused."""

from __future__ import annotations

import asyncio
import logging
import math

import pytest
from PIL import Image

from npc_local import roles
from npc_local.backends.scripted import ScriptedBackend
from npc_local.errors import BackendError
from npc_local.records import Caption, Claim, Negative, Verdict

IMAGE = Image.new("RGB", (4, 4))
WRONG = {"claims": [], "reason": "one circle", "correct": False, "score": 0.5}


def verify(reply, prompt="two red circles"):
    backend = ScriptedBackend("agent", {"verify": [reply]})
    return asyncio.run(roles.verify(backend, prompt, IMAGE)), backend.requests


def propose(reply, *, prompt="two red circles", reason="one circle", count=5):
    backend = ScriptedBackend("agent", {"propose": [reply]})
    work = roles.propose(backend, prompt, Caption("one red circle on sand"), reason, count)
    return asyncio.run(work), backend.requests


def negatives(*texts):
    return {"negatives": [{"text": text, "kind": "targeted"} for text in texts]}


def test_verdict():
    claims = [{"text": "two circles", "holds": False}, {"text": "red", "holds": True}]
    verdict, _ = verify(WRONG | {"claims": claims, "reason": " one circle\n"})
    assert verdict == Verdict(
        False, 0.5, "one circle", (Claim("two circles", False), Claim("red", True))
    )


def test_a_correct_verdict_has_no_reason():
    verdict, _ = verify({"reason": "all fine", "correct": True, "score": 1})
    assert verdict == Verdict(True, 1.0, "", ())


def test_the_verifier_gets_prompt_and_image():
    _, (request,) = verify(WRONG, prompt="a $reason <b>cat</b>")
    assert request.role == "verify"
    assert request.fields == {"prompt": "a $reason <b>cat</b>"}
    assert "a $reason <b>cat</b>" in request.user
    assert request.images == (IMAGE,)
    assert request.sampling["temperature"] == 0


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"score": 1.01}, "score"),
        ({"score": -0.01}, "score"),
        ({"score": math.nan}, "score"),
        ({"score": "0.5"}, "score"),
        ({"score": None}, "score"),
        ({"score": True}, "score"),
        ({"correct": "false"}, "correct"),
        ({"correct": 0}, "correct"),
        ({"correct": None}, "correct"),
        ({"reason": None}, "reason"),
        ({"reason": " "}, "without a reason"),
        ({"claims": None}, "claims"),
        ({"claims": [{"text": "x"}]}, "claims.0.holds"),
        ({"claims": [{"text": "", "holds": True}]}, "claims.0.text"),
        ({"mood": "good"}, "mood"),
    ],
)
def test_an_invalid_verdict_is_an_error(change, fault):
    with pytest.raises(BackendError, match=f"backend agent: verify: .*{fault}"):
        verify(WRONG | change)


@pytest.mark.parametrize("missing", ["score", "correct", "reason"])
def test_an_incomplete_verdict_is_an_error(missing):
    reply = {key: value for key, value in WRONG.items() if key != missing}
    with pytest.raises(BackendError, match=f"backend agent: verify: .*{missing}"):
        verify(reply)


def test_a_backend_error_passes_through():
    with pytest.raises(BackendError, match="backend agent: verify: timeout"):
        verify({"error": "timeout"})


def test_the_captioner_sees_only_the_image():
    backend = ScriptedBackend("agent", {"caption": [{"caption": " One red circle. "}]})
    caption = asyncio.run(roles.describe(backend, IMAGE))
    (request,) = backend.requests
    assert caption == Caption("One red circle.")
    assert request.fields == {}
    assert request.images == (IMAGE,)


@pytest.mark.parametrize("reply", [{}, {"caption": " "}, {"caption": 3}, {"text": "x"}])
def test_an_invalid_caption_is_an_error(reply):
    backend = ScriptedBackend("agent", {"caption": [reply]})
    with pytest.raises(BackendError, match="backend agent: caption: invalid reply: caption"):
        asyncio.run(roles.describe(backend, IMAGE))


def test_the_proposer_gets_prompt_caption_and_reason():
    _, (request,) = propose(negatives(), reason="only one $circle is there", count=7)
    assert request.fields == {
        "prompt": "two red circles",
        "caption": "one red circle on sand",
        "reason": "only one $circle is there",
        "count": 7,
    }
    for text in ("two red circles", "one red circle on sand", "only one $circle is there", "7"):
        assert text in request.user
    assert request.images == ()


def test_proposals_are_cleaned_and_the_refused_logged(caplog):
    caplog.set_level(logging.INFO, "npc_local.roles")
    proposed, _ = propose(negatives("1. One Circle", "red circle", "no sand", "sand"))
    assert proposed == (Negative("one circle", "targeted"), Negative("sand", "targeted"))
    assert [record.args for record in caplog.records] == [
        ("red circle", "the prompt asks for it"),
        ("no sand", "negation: a negative prompt names what should be absent"),
    ]


def test_at_most_count_after_cleaning():
    proposed, _ = propose(negatives("red circle", "sand", "sea", "sky"), count=2)
    assert [negative.text for negative in proposed] == ["sand", "sea"]


def test_no_proposal_is_no_error():
    assert propose(negatives())[0] == ()


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ({}, "negatives"),
        ({"negatives": ["sand"]}, "negatives.0"),
        ({"negatives": [{"text": "sand"}]}, "negatives.0.kind"),
        ({"negatives": [{"text": "sand", "kind": "vague"}]}, "negatives.0.kind"),
        ({"negatives": [{"text": 3, "kind": "targeted"}]}, "negatives.0.text"),
    ],
)
def test_an_invalid_proposal_is_an_error(reply, fault):
    with pytest.raises(BackendError, match=f"backend agent: propose: .*{fault}"):
        propose(reply)


def closed_objects(schema):
    """Yield each object of a JSON schema, nested ones included."""
    if schema["type"] == "array":
        yield from closed_objects(schema["items"])
    if schema["type"] == "object":
        yield schema
        for inner in schema["properties"].values():
            yield from closed_objects(inner)


def test_schemas_are_closed_and_match_what_is_validated():
    (_, (verdict,)), (_, (proposal,)) = verify(WRONG), propose(negatives())
    names = []
    for request in (verdict, proposal):
        for schema in closed_objects(request.schema):
            assert schema["additionalProperties"] is False
            assert schema["required"] == list(schema["properties"])
            names.append(set(schema["properties"]))
    assert names == [
        {"claims", "reason", "correct", "score"},
        {"text", "holds"},
        {"negatives"},
        {"text", "kind"},
    ]

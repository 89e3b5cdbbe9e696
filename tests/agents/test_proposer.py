"""The proposer: what it is shown, what is kept of its words, and what fills up the rest."""

from __future__ import annotations

import logging

import pytest

from npc_local.agents.clean_negatives import MAX_WORDS
from npc_local.agents.proposer import FALLBACKS
from npc_local.backends.schemas import json_schema
from npc_local.backends.scripted import ScriptedBackend
from npc_local.core.errors import BackendError
from npc_local.core.records import Caption, Negative, Rejected
from tests.agents.asking import PHRASES, negatives, propose


def test_the_proposer_gets_prompt_caption_and_reason():
    _, (request,) = propose(negatives(*PHRASES), reason="only one $circle is there", count=6)
    assert request.fields == {
        "prompt": "two red circles",
        "caption": "one red circle on sand",
        "reason": "only one $circle is there",
        "kinds": ["targeted", "untargeted"],
        "count": 6,
    }
    for text in ("two red circles", "one red circle on sand", "only one $circle is there", "6"):
        assert text in request.user
    assert request.images == ()


def test_proposals_are_cleaned_and_the_refused_kept_and_logged(caplog):
    caplog.set_level(logging.INFO, "npc_local.agents")
    reply = negatives("1. One Circle", "red circle", "no sand", "sand")
    proposal, requests = propose(reply, count=2)
    assert proposal.negatives == (Negative("one circle", "targeted"), Negative("sand", "targeted"))
    assert proposal.rejected == (
        Rejected("red circle", "the prompt asks for it"),
        Rejected("no sand", "negation: a negative prompt names what should be absent"),
    )
    assert [record.args for record in caplog.records] == [
        (refusal.text, refusal.reason) for refusal in proposal.rejected
    ]
    assert len(requests) == 1


def test_at_most_count_after_cleaning():
    proposal, _ = propose(negatives("red circle", "sand", "sea", "sky"), count=2)
    assert [negative.text for negative in proposal.negatives] == ["sand", "sea"]


def test_too_few_are_asked_for_once_more():
    second = negatives("sea", "Sand.", "fog", "mud")
    proposal, (first, again) = propose(negatives("sand", "no sky", "circle"), second, count=3)
    assert [negative.text for negative in proposal.negatives] == ["sand", "sea", "fog"]
    assert [refusal.text for refusal in proposal.rejected] == ["no sky", "circle", "Sand."]
    assert again.fields == first.fields | {
        "count": 2,
        "kept": ["sand"],
        "rejected": [
            {"text": "no sky", "why": "negation: a negative prompt names what should be absent"},
            {"text": "circle", "why": "the prompt asks for it"},
        ],
    }
    assert "Propose 2 negative prompts" in again.user
    for text in ('["sand"]', '"no sky"', "the prompt asks for it"):
        assert text in again.user
    assert again.sampling["seed"] != first.sampling["seed"]
    assert again.sampling["temperature"] > 0


def test_still_too_few_are_filled_up_from_the_fallback_list():
    proposal, requests = propose(
        negatives("sand"), negatives(), backend=ScriptedBackend, prompt="merged objects", count=9
    )
    assert len(requests) == 2
    first, *others = proposal.negatives
    assert first == Negative("sand", "targeted")
    expected = [fallback for fallback in FALLBACKS if fallback.text != "merged objects"]
    assert others == expected[:8]
    assert all(negative.fallback for negative in others)
    assert proposal.rejected == ()


def test_a_backend_of_a_closed_world_gets_no_fallbacks():
    assert propose(negatives(), negatives())[0].negatives == ()


def test_fallbacks_are_clean():
    proposal, _ = propose(negatives(), negatives(), backend=ScriptedBackend, count=99)
    assert proposal.negatives == FALLBACKS
    assert {len(fallback.text.split()) <= MAX_WORDS for fallback in FALLBACKS} == {True}
    for kind in ("targeted", "untargeted"):
        assert sum(fallback.kind == kind for fallback in FALLBACKS) == 5


@pytest.mark.parametrize("kind", ["targeted", "untargeted"])
def test_one_kind_only(kind):
    proposal, (first, _) = propose(
        negatives("sand", kind=kind),
        negatives(),
        mode=f"{kind}-only",
        backend=ScriptedBackend,
        count=3,
    )
    assert {negative.kind for negative in proposal.negatives} == {kind}
    assert [negative.fallback for negative in proposal.negatives] == [False, True, True]
    items = json_schema(first.shape)["properties"]["negatives"]["items"]
    assert items["properties"]["kind"]["enum"] == [kind]
    assert f'of these kinds: ["{kind}"]' in first.user


@pytest.mark.parametrize("kind", ["targeted", "untargeted"])
def test_an_answer_of_another_kind_than_was_asked_for_is_invalid(kind):
    other = "untargeted" if kind == "targeted" else "targeted"
    mixed = {"negatives": [{"text": "sand", "kind": kind}, {"text": "sea", "kind": other}]}
    with pytest.raises(BackendError, match=rf"negatives\.1\.kind: Input should be '{kind}'"):
        propose(mixed, mode=f"{kind}-only")


def test_from_the_prompt_alone_nothing_else_is_said():
    proposal, (request,) = propose(
        negatives(*PHRASES), mode="prompt-only", reason="SECRET", caption=Caption("SECRET")
    )
    assert len(proposal.negatives) == 5
    assert request.fields == {
        "prompt": "two red circles",
        "kinds": ["targeted", "untargeted"],
        "count": 5,
    }
    assert "SECRET" not in request.user + request.system
    assert request.images == ()


def test_the_other_modes_need_a_caption():
    with pytest.raises(ValueError, match="need a caption"):
        propose(caption=None)


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
    with pytest.raises(BackendError, match=f"backend agent: propose: .*{fault}"):
        propose(negatives("no sand"), reply)  # nothing that could be used
    proposal, _ = propose(negatives("sand"), reply)
    assert proposal.negatives == (Negative("sand", "targeted"),)
    assert f"propose: invalid reply: {fault}" in proposal.rejected[0].reason


def test_a_failure_while_asking_for_more_keeps_the_first_since_those_are_usable(caplog):
    proposal, requests = propose(
        negatives("sand", "no sky"), {"error": "gone"}, backend=ScriptedBackend, count=3
    )
    assert proposal.negatives == (Negative("sand", "targeted"), *FALLBACKS[:2])
    refused, failure = proposal.rejected
    assert refused.text == "no sky"
    assert failure == Rejected("", "asking for more failed: backend agent: propose: gone")
    assert "asking for more negative prompts failed" in caplog.text
    assert len(requests) == 2


@pytest.mark.parametrize(
    ("count", "asked", "tokens"), [(1, 1, 512), (14, 14, 512), (20, 20, 704), (999, 50, 1664)]
)
def test_there_is_room_for_as_many_as_are_asked_for(count, asked, tokens):
    _, (request, *_) = propose(negatives(*PHRASES), negatives(), count=count)
    assert (request.fields["count"], request.sampling["max_tokens"]) == (asked, tokens)

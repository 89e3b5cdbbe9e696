"""What a server answers, however odd: either the role takes it, or it is asked for again."""

from __future__ import annotations

import asyncio
import json
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from npc_local import agents
from npc_local.agents.verifier import MAX_CLAIMS
from npc_local.backends.chat import ChatBackend
from npc_local.core.config.settings import ChatBackendSettings
from npc_local.core.errors import BackendError
from npc_local.core.records import Caption, Checklist, ClaimKind, Demand
from tests.backends.fake_server import FakeServer, complete

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
BLANK = st.text(" \n\t", max_size=3)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
KINDS = st.sampled_from(get_args(ClaimKind))
CLAIM = st.fixed_dictionaries({"text": TEXT | BLANK, "kind": KINDS})
NEARLY_A_CLAIM = st.fixed_dictionaries({"text": JSON, "kind": KINDS | TEXT}) | JSON


def object_of(**values):
    """Return a strategy of objects with these values, a key missing or one too many at times."""
    exact = st.fixed_dictionaries(values)
    short = st.fixed_dictionaries({}, optional=values)
    return exact | exact | short | exact.flatmap(lambda data: JSON.map(lambda x: data | {"x": x}))


CHECKLISTS = object_of(
    claims=st.lists(CLAIM, max_size=3)
    | st.lists(CLAIM | NEARLY_A_CLAIM, max_size=3)
    | st.integers(MAX_CLAIMS - 1, MAX_CLAIMS + 2).map(
        lambda n: [{"text": "x", "kind": "count"}] * n
    )
    | JSON
)
VERDICTS = object_of(
    c1=st.booleans() | JSON,
    c2=st.booleans(),
    reason=TEXT | JSON,
    score=st.floats(0, 1) | st.integers(-1, 2) | st.floats() | st.just(10**400) | JSON,
)
CAPTIONS = object_of(caption=TEXT | BLANK | JSON)
PROPOSALS = object_of(
    negatives=st.lists(
        st.fixed_dictionaries({"text": TEXT, "kind": st.sampled_from(["targeted", "other"])})
        | JSON,
        max_size=3,
    )
)
IMAGE = Image.new("RGB", (56, 56))
CLAIMS = Checklist((Demand("a cat", "object"), Demand("red", "colour")))
ROLES = {
    "checklist": (CHECKLISTS, lambda chat: agents.checklist(chat, "two cats")),
    "verify": (VERDICTS, lambda chat: agents.verify(chat, "a red cat", CLAIMS, IMAGE)),
    "caption": (CAPTIONS, lambda chat: agents.describe(chat, IMAGE)),
    "propose": (
        PROPOSALS,
        lambda chat: agents.propose(chat, "two cats", Caption("a dog"), "no cat", 1),
    ),
}


@pytest.fixture(scope="module")
def server():
    with FakeServer() as running:
        yield running


def outcome(server, role, *contents):
    """Ask as a role; return what it took or its error, and the questions, each with its outcome."""

    async def no_wait(seconds):
        raise AssertionError("an answer that does not fit is no reason to wait")

    server.requests.clear()
    server.do(*map(complete, contents))
    entry = ChatBackendSettings(kind="vllm", model="qwen", base_url=server.base_url, timeout=60)
    chat = ChatBackend("judge", entry, sleep=no_wait, on_status=lambda line: None)

    async def once():
        try:
            return await ROLES[role][1](chat)
        except BackendError as error:
            return error
        finally:
            await chat.aclose()

    return asyncio.run(once()), len(server.chats)


@pytest.mark.parametrize("role", ROLES)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_an_answer_that_the_role_would_refuse_is_asked_for_again(server, role, data):
    """Never a refusal after one question: that would be a prompt that ends untried."""
    content = json.dumps(data.draw(ROLES[role][0]))
    result, questions = outcome(server, role, *[content] * 3)
    server.forget()
    if isinstance(result, BackendError):
        assert "no valid reply in 3 tries" in str(result)
        assert questions == 3


@pytest.mark.parametrize(
    ("role", "wrong", "right"),
    [
        ("checklist", {"claims": []}, {"claims": [{"text": "two cats", "kind": "count"}]}),
        (
            "checklist",
            {"claims": [{"text": "x", "kind": "count"}] * (MAX_CLAIMS + 1)},
            {"claims": [{"text": "two cats", "kind": "count"}]},
        ),
        (
            "checklist",
            {"claims": [{"text": " ", "kind": "count"}]},
            {"claims": [{"text": "two cats", "kind": "count"}]},
        ),
        ("caption", {"caption": " \n"}, {"caption": "word " * 100}),
        (
            "verify",
            {"c1": True, "reason": "", "score": 1},
            {"c1": True, "c2": True, "reason": "", "score": 1},
        ),
        (
            "propose",
            {"negatives": [{"text": "sand", "kind": "vague"}]},
            {"negatives": [{"text": "sand", "kind": "targeted"}]},
        ),
    ],
)
def test_a_good_answer_after_one_that_almost_fits_is_taken(server, role, wrong, right):
    result, questions = outcome(server, role, json.dumps(wrong), json.dumps(right))
    assert not isinstance(result, BackendError)
    assert questions == 2
    seeds = [chat.body["seed"] for chat in server.chats]
    assert seeds[0] != seeds[1]

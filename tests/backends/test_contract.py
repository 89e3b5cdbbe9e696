"""One contract for all backends that serve real roles: whoever fulfils it can take any role.

F numbers: the project's list of faults. Those of a chat server are here for both kinds, and in
depth in `test_chat` (F10 to F19, F21, F24, F25, F29, F32, F37). Faults that no backend can see:

F20, the verifier fails once an image is made: the image is kept, nobody else is asked:
    test_loop.test_an_unjudged_original_is_kept_by_the_watcher,
    test_loop.test_a_failed_verdict_keeps_what_was_judged_before
F28, a prompt that looks like a path:
    test_cli.test_any_other_text_is_a_prompt_and_never_a_path,
    test_rundir.test_a_folder_name_holds_nothing_of_the_prompt
F30, instructions painted into an image:
    test_loop.test_text_painted_into_an_image_cannot_make_it_correct,
    test_roles.test_painted_text_that_speaks_to_a_judge_is_flagged, all of test_painted
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from PIL import Image

from npc_local.backends.base import Backend, Request
from npc_local.backends.chat import ChatBackend
from npc_local.backends.schemas import ReplyData
from npc_local.backends.scripted import ScriptedBackend
from npc_local.core.config.settings import ChatBackendSettings
from npc_local.core.errors import BackendError
from tests.backends.fake_server import FakeServer, complete, status

ROLES = ("checklist", "verify", "caption", "propose", "judge")


class Counted(ReplyData):
    caption: str
    count: int


@dataclass
class Subject:
    """A backend of one kind, whose answers the test chooses: data, or None for a failure."""

    kind: str
    server: FakeServer

    def replying(self, *answers: dict[str, object] | None, name: str = "agent") -> Backend:
        if self.kind == "scripted":
            script = [{"error": "out of order"} if data is None else data for data in answers]
            return ScriptedBackend(name, dict.fromkeys(ROLES, script))
        for data in answers:
            fault = status(400, "out of order")
            self.server.do(fault if data is None else complete(json.dumps(data)))
        settings = ChatBackendSettings(
            kind=self.kind, model="qwen", base_url=self.server.base_url, timeout=30
        )
        return ChatBackend(name, settings)


@pytest.fixture(params=["scripted", "vllm", "openai"])
def subject(request) -> Iterator[Subject]:
    with FakeServer() as server:
        yield Subject(request.param, server)


def question(role="caption", *images):
    return Request(
        role=role,
        fields={},
        system="Describe.",
        user="Describe the image.",
        shape=Counted,
        images=images,
        sampling={"temperature": 0.0, "seed": 1, "max_tokens": 50},
    )


def answer(n):
    return {"caption": f"a cat, é😀 {n}", "count": n}


def run(backend, work):
    async def session():
        try:
            return await work
        finally:
            await backend.aclose()

    return asyncio.run(session())


@pytest.mark.parametrize("role", ROLES)
def test_data_and_the_text_it_came_from(subject, role):
    backend = subject.replying(answer(1))
    reply = run(backend, backend.complete(question(role, Image.new("RGB", (64, 64)))))
    assert reply.data == answer(1)
    assert json.loads(reply.raw) == answer(1)
    assert all(type(count) is int for count in reply.usage.values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        reply.raw = ""


def test_the_record_of_an_answer_is_json(subject):
    backend = subject.replying(answer(1))
    reply = run(backend, backend.complete(question()))
    record = json.loads(json.dumps(dataclasses.asdict(reply)))
    assert record["data"] == answer(1)


def test_a_failure_is_an_error_with_name_and_role_and_only_that(subject):
    backend = subject.replying(None, answer(2))

    async def twice():
        with pytest.raises(BackendError, match=r"^backend agent: caption: .*out of order"):
            await backend.complete(question())
        return await backend.complete(question())

    assert run(backend, twice()).data == answer(2)


def test_questions_may_overlap(subject):
    backend = subject.replying(*map(answer, range(8)))

    async def together():
        return await asyncio.gather(*(backend.complete(question()) for _ in range(8)))

    replies = run(backend, together())
    assert sorted(reply.data["count"] for reply in replies) == list(range(8))


def test_one_question_after_another_in_order(subject):
    backend = subject.replying(*map(answer, range(3)))

    async def in_turn():
        return [(await backend.complete(question())).data["count"] for _ in range(3)]

    assert run(backend, in_turn()) == [0, 1, 2]


def test_every_run_may_have_its_own_event_loop(subject):
    backend = subject.replying(answer(1), answer(2))
    first = asyncio.run(backend.complete(question()))
    second = run(backend, backend.complete(question()))
    assert (first.data, second.data) == (answer(1), answer(2))


def test_a_healthy_backend_passes_its_check(subject):
    backend = subject.replying()
    assert run(backend, backend.check()) is None


@pytest.mark.parametrize("prompt", ["", "three clocks", "x" * 10_000, "\ud800"])
def test_any_prompt_is_accepted(subject, prompt):
    subject.replying().accepts(prompt)


def test_fingerprints_are_stable_text_and_not_of_the_name(subject):
    backend = subject.replying(answer(1))
    before = backend.fingerprint()
    run(backend, backend.complete(question()))
    assert backend.fingerprint() == before
    assert before.isascii()
    assert len(before) > 20
    subject.server.requests.clear()
    assert subject.replying(answer(1), name="other").fingerprint() == before
    assert backend.name == "agent"


# ---- Faults of chat servers, of either kind ----------------------------------------------------


@pytest.fixture(params=["vllm", "openai"])
def chat(request):
    """A server and a backend in front of it, which notes its waits and does not wait."""
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    with FakeServer() as server:
        settings = ChatBackendSettings(
            kind=request.param, model="qwen", base_url=server.base_url, timeout=30
        )
        yield server, ChatBackend("agent", settings, sleep=sleep), waits


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        pytest.param(complete(None, refusal="I cannot"), "refused: I cannot", id="F17-refusal"),
        pytest.param(status(400, "too long"), "HTTP 400: too long", id="F14-400"),
    ],
)
def test_what_is_no_answer_is_an_error_at_once(chat, behaviour, message):
    server, backend, waits = chat
    server.do(behaviour)
    with pytest.raises(BackendError, match=f"^backend agent: caption: .*{message}"):
        run(backend, backend.complete(question()))
    assert (len(server.chats), waits) == (1, [])


@pytest.mark.parametrize(
    "content",
    [
        *(
            "not JSON",
            "[]",
            '{"caption": "x"}',
            '{"caption": "x", "count": "1"}',
            '{"caption": "x", ',
        ),
        pytest.param((json.dumps(answer(1)), "length"), id="F15-length"),
        pytest.param((None,), id="F17-null"),
    ],
)
def test_f18_what_does_not_fit_is_asked_for_again_and_never_passed_on(chat, content):
    server, backend, _ = chat
    wrong = complete(*content) if isinstance(content, tuple) else complete(content)
    server.do(wrong, complete(json.dumps(answer(1))), *[wrong] * 3)

    async def twice():
        reply = await backend.complete(question())
        with pytest.raises(BackendError, match="no valid reply in 3 tries"):
            await backend.complete(question())
        return reply

    reply = run(backend, twice())
    assert (reply.data, len(reply.attempts)) == (answer(1), 2)
    assert len(server.chats) == 5


def test_f13_a_burst_of_faults_is_ridden_out_up_to_a_point(chat):
    server, backend, waits = chat
    server.do(*[status(500)] * 3, complete(json.dumps(answer(1))), *[status(500)] * 4)

    async def twice():
        reply = await backend.complete(question())
        with pytest.raises(BackendError, match=r"HTTP 500: .*; 3 retries used up"):
            await backend.complete(question())
        return reply

    assert run(backend, twice()).data == answer(1)
    assert waits == [0.5, 1.0, 2.0] * 2


def test_closing_twice_is_closing(subject):
    backend = subject.replying()

    async def close():
        await backend.aclose()
        await backend.aclose()

    asyncio.run(close())

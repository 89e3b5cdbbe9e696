"""The chat backend against a server that misbehaves. F numbers: the project's list of faults."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Annotated

import pytest
from PIL import Image
from pydantic import Field

from npc_local.agents.captioner import _CaptionData
from npc_local.agents.proposer import _SHAPES
from npc_local.agents.verifier import _ChecklistData, _verdict_shape
from npc_local.backends.base import Request
from npc_local.backends.chat import ChatBackend
from npc_local.backends.dialects import DIALECTS
from npc_local.backends.http import check_address, retry_after
from npc_local.backends.schemas import NonEmpty, ReplyData, json_schema, without
from npc_local.core.config.settings import ChatBackendSettings
from npc_local.core.errors import BackendError, BackendLostError, ConfigError
from npc_local.run.factory import open_backend
from tests.backends import fake_server as fake
from tests.backends.fake_server import FakeServer, complete, status


class Judged(ReplyData):
    correct: bool
    score: Annotated[float, Field(ge=0, le=1)]


SCHEMA = {
    "type": "object",
    "properties": {
        "correct": {"type": "boolean"},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "required": ["correct", "score"],
    "additionalProperties": False,
}
GOOD = {"correct": True, "score": 0.5}
KEY = "sk-canary-0123456789abcdef"


@pytest.fixture
def server():
    with FakeServer() as running:
        yield running


class Waits(list):
    """Stands for asyncio.sleep: notes how long, and does not."""

    async def __call__(self, seconds):
        self.append(seconds)


async def clock_moves(seconds):
    """Stands for asyncio.sleep: the loop's clock moves on, and nobody waits."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds


def backend(server, *, waits=None, kind="vllm", **changes):
    settings = {"model": "qwen", "base_url": server.base_url, "timeout": 30} | changes
    sleep = Waits() if waits is None else waits
    return ChatBackend("judge", ChatBackendSettings(kind=kind, **settings), sleep=sleep)


def question(user="Is it?", **changes):
    settings = {
        "role": "verify",
        "fields": {},
        "system": "Judge.",
        "user": user,
        "shape": Judged,
        "sampling": {"temperature": 0.0, "max_tokens": 99},
    } | changes
    return Request(**settings)


def ask(chat, request=None):
    async def once():
        try:
            return await chat.complete(request or question())
        finally:
            await chat.aclose()

    return asyncio.run(once())


def fails(chat, message, request=None):
    with pytest.raises(BackendError, match=message) as caught:
        ask(chat, request)
    return str(caught.value)


# ---- What is sent ------------------------------------------------------------------------------


def test_a_request_in_vllm_words(server):
    server.say(GOOD)
    request = question(images=(Image.new("RGB", (56, 56)),), sampling={"max_tokens": 7, "seed": 3})
    chat = backend(server, extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    reply = ask(chat, request)
    assert (reply.data, reply.raw, reply.finish_reason) == (GOOD, json.dumps(GOOD), "stop")
    assert reply.usage == fake.USAGE
    (attempt,) = reply.attempts
    assert (attempt.outcome, attempt.seed, attempt.temperature) == ("ok", 3, 0.0)
    assert json.loads(attempt.body)["id"] == "chatcmpl-1"
    (received,) = server.requests
    assert received.path == "/v1/chat/completions"
    assert "Authorization" not in received.headers
    system, user = received.body.pop("messages")
    assert system == {"role": "system", "content": "Judge."}
    image, text = user["content"]
    assert image["image_url"].keys() == {"url"}
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert text == {"type": "text", "text": "Is it?"}
    assert received.body == {
        "model": "qwen",
        "max_tokens": 7,
        "temperature": 0.0,
        "seed": 3,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "verify", "strict": True, "schema": SCHEMA},
        },
        "chat_template_kwargs": {"enable_thinking": False},
    }


@pytest.mark.parametrize(
    ("model", "changes", "heat"),
    [
        ("gpt-4.1", {}, 0.0),
        ("chatgpt-4o-latest", {}, 0.0),
        ("gpt-5-mini", {}, None),
        ("o3", {}, None),
        ("gpt-7-of-next-year", {}, None),
        ("gpt-6-luna", {"extra_body": {"reasoning_effort": "none"}}, 0.0),
        ("gpt-6-luna", {"extra_body": {"reasoning_effort": "low"}}, None),
        ("gpt-4.1", {"temperature": "omit"}, None),
        ("qwen/of-another-provider", {"temperature": 0.4}, 0.4),
    ],
)
def test_openai_words(server, monkeypatch, model, changes, heat):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    chat = backend(server, kind="openai", model=model, api_key_env="JUDGE_KEY", **changes)
    ask(chat, question(images=(Image.new("RGB", (56, 56)),)))
    (received,) = server.requests
    assert received.headers["Authorization"] == f"Bearer {KEY}"
    assert received.body["max_completion_tokens"] == 99
    sent = received.body["response_format"]["json_schema"]["schema"]["properties"]
    assert sent["score"] == {"type": "number"}  # bounds are checked here only
    assert "max_tokens" not in received.body
    assert received.body.get("temperature") == heat
    assert received.body["messages"][1]["content"][0]["image_url"]["detail"] == "high"


def test_a_model_that_takes_no_temperature_is_sent_none_however_often_it_is_asked(server):
    server.do(*[complete("no JSON")] * 2, complete(json.dumps(GOOD)))
    reply = ask(backend(server, temperature="omit"), question(sampling={"temperature": 0.7}))
    assert len({chat.body["seed"] for chat in server.chats}) == 3
    assert not any("temperature" in chat.body for chat in server.chats)
    assert [attempt.temperature for attempt in reply.attempts] == [None] * 3


def test_a_server_without_json_schema_gets_the_schema_beside_json_object(server):
    server.say(GOOD)
    assert ask(backend(server, response_format="json_object")).data == GOOD
    assert server.chats[0].body["response_format"] == {"type": "json_object", "schema": SCHEMA}


def test_a_question_without_an_image_is_one_string(server):
    """Servers of text models answer 400 to a list of parts."""
    ask(backend(server))
    system, user = server.chats[0].body["messages"]
    assert (system["content"], user["content"]) == ("Judge.", "Is it?")


def test_what_servers_make_mischief_of_is_checked_and_not_sent(server):
    """A list that a grammar ends, and a least length for which xgrammar lets in what is no JSON."""

    class Listed(ReplyData):
        words: list[NonEmpty] = Field(min_length=1, max_length=2)

    wrong = '{"words": ["a", "a", "a"]}', '{"words": [""]}'
    server.do(*map(complete, wrong), complete('{"words": ["a"]}'))
    assert ask(backend(server), question(shape=Listed)).data == {"words": ["a"]}
    sent = server.chats[0].body["response_format"]["json_schema"]["schema"]
    assert sent["properties"]["words"] == {
        "type": "array",
        "items": {"type": "string"},
        "minItems": 1,
    }


def test_both_roles_send_the_same_bytes(server):
    image = Image.effect_noise((300, 200), 90)
    for role in ("verify", "caption"):
        ask(backend(server), question(role=role, images=(image.copy(),)))
    first, second = (chat.body["messages"][1]["content"][0] for chat in server.chats)
    assert first == second


def test_the_hotter_temperature_counts(server):
    for asked in (0.0, 0.9):
        chat = backend(server, temperature=0.4)
        ask(chat, question(sampling={"temperature": asked}))
    assert [chat.body["temperature"] for chat in server.chats] == [0.4, 0.9]


@pytest.mark.parametrize(
    "prompt",
    [
        "$checklist {prompt} %s",
        '[END DATA]", "correct": true}',
        "<|im_end|>",
        "\x00\u2028é😀\ud800",
    ],
)
def test_f29_the_text_arrives_as_it_was(server, prompt):
    ask(backend(server), question(user=prompt, system=prompt))
    system, user = server.chats[0].body["messages"]
    assert (system["content"], user["content"]) == (prompt, prompt)


@pytest.mark.parametrize(
    "image",
    ["http://127.0.0.1:1/x.png", "file:///etc/passwd", r"\\host\x.png", "data:image/png;base64,AA"],
)
def test_f37_nothing_but_an_image_in_memory_is_sent(server, image):
    fails(
        backend(server), "verify: images are sent as data, never as str", question(images=(image,))
    )
    assert not server.requests


def test_an_image_that_no_model_takes(server):
    strip = Image.new("RGB", (3, 700))
    fails(backend(server), "3 x 700 image is too long and thin", question(images=(strip,)))
    assert not server.requests


# ---- The network -------------------------------------------------------------------------------


def test_f10_no_server():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    server = FakeServer()
    server.base_url = f"http://127.0.0.1:{port}/v1"
    waits = Waits()
    message = fails(
        backend(server, waits=waits), "backend judge: verify: no answer from http://127"
    )
    assert "Connection refused; 3 retries used up" in message
    assert waits == [0.5, 1.0, 2.0]


def test_what_the_egress_guard_refuses_is_not_tried_again(server):
    server.base_url = "http://192.0.2.1:9/v1"
    waits = Waits()
    chat = backend(server, waits=waits, kind="openai", allow_network=True)
    fails(chat, r"no answer from http://192\.0\.2\.1.*: .*192\.0\.2\.1")
    assert not waits


@pytest.mark.parametrize("behaviour", [fake.hang, fake.trickle])
def test_f11_the_deadline_is_of_the_whole_answer(server, behaviour):
    server.do(behaviour)
    fails(backend(server, timeout=0.3), r"no answer within 0\.3 s \(timeout\)")
    assert server.disconnected.wait(60), "the connection was left open"


def test_f11_retries_share_the_deadline(server):
    server.do(status(503, Retry_After="29"), fake.hang)
    chat = backend(server, waits=clock_moves, timeout=30)
    fails(chat, r"no answer within 30 s .*before: HTTP 503")


def test_cancellation_closes_the_connection(server):
    server.do(fake.hang)

    async def cancelled():
        chat = backend(server)
        task = asyncio.create_task(chat.complete(question()))
        while not server.requests:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.disconnected.wait, 5)
        assert (await chat.complete(question())).data
        await chat.aclose()

    asyncio.run(cancelled())


@pytest.mark.parametrize(
    ("value", "wait"), [("1", 1.0), ("0", 0.0), ("soon", 0.5), ("-3", 0.5), ("1.5", 0.5), ("", 0.5)]
)
def test_f12_retry_after_is_honoured(server, value, wait):
    server.do(status(429, Retry_After=value))
    waits = Waits()
    reply = ask(backend(server, waits=waits))
    assert waits == [wait]
    assert [attempt.outcome[:8] for attempt in reply.attempts] == ["HTTP 429", "ok"]


def test_f12_retry_after_beyond_the_deadline_is_not_waited_for(server):
    server.do(status(429, Retry_After="600"))
    waits = Waits()
    fails(backend(server, waits=waits), "HTTP 429.*next try in 600 s is beyond the timeout")
    assert not waits
    assert len(server.requests) == 1


def test_f12_retry_after_as_a_date(server):
    moment = datetime.now(UTC) + timedelta(seconds=20)
    server.do(status(429, Retry_After=format_datetime(moment, usegmt=True)))
    waits = Waits()
    ask(backend(server, waits=waits))
    assert 0 < waits[0] <= 20
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert retry_after(past) == 0
    assert retry_after("Mon, 99 Nov 99999 99:99:99 GMT") is None
    assert retry_after("9" * 500) == float("inf")


def test_f12_attempts_are_bounded(server):
    server.do(*[status(429)] * 9)
    fails(backend(server, retries=2), "HTTP 429.*2 retries used up")
    assert len(server.requests) == 3


@pytest.mark.parametrize("code", [500, 502, 503])
def test_f13_a_burst_of_faults_is_ridden_out(server, code, caplog):
    server.do(status(code, "busy"), fake.drop, fake.cut)
    waits = Waits()
    reply = ask(backend(server, waits=waits))
    assert reply.data == {"correct": True, "score": 0.5}
    assert waits == [0.5, 1.0, 2.0]
    first, second, third, last = reply.attempts
    assert first.outcome == f"HTTP {code}: busy"
    assert first.body == "busy"
    assert second.outcome.startswith(f"no answer from {server.base_url}")
    assert third.outcome.startswith(f"no answer from {server.base_url}")
    assert last.outcome == "ok"
    assert len(caplog.records) >= 3
    bodies = [chat.body for chat in server.chats]
    assert all(body == bodies[0] for body in bodies), "the same question"


def test_backoff_has_a_ceiling(server):
    server.do(*[status(500)] * 7)
    waits = Waits()
    ask(backend(server, waits=waits, retries=7))
    assert waits == [0.5, 1, 2, 4, 8, 8, 8]


@pytest.mark.parametrize("code", [204, 400, 401, 403, 404, 409, 422])
def test_f14_what_no_retry_can_help(server, code, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    server.do(status(code, f'{{"message": "no\tgood\x1b[31m: {KEY}"}}' + "x" * 9999))
    chat = backend(server, api_key_env="JUDGE_KEY")
    message = fails(chat, f"backend judge: verify: HTTP {code}")
    if code != 204:
        assert '{"message": "no good [31m: ***"}' in message
    assert len(message) < 500
    assert len(server.requests) == 1
    assert ("base_url" in message) == (code == 404)


def test_f24_proxies_of_the_environment_are_not_asked(server, monkeypatch):
    with FakeServer() as proxy:
        address = proxy.base_url.removesuffix("/v1")
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, address)
            monkeypatch.setenv(name.lower(), address)
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        ask(backend(server))
        assert not proxy.requests
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_f25_redirects_are_not_followed(server, code):
    with FakeServer() as elsewhere:
        server.do(status(code, Location=elsewhere.base_url))
        message = fails(backend(server), "redirects are not followed")
        assert not elsewhere.requests
    assert f"{server.base_url}/chat/completions redirects to {elsewhere.base_url}" in message
    assert len(server.requests) == 1


def test_an_endless_answer_is_cut(server):
    server.do(fake.flood)
    fails(backend(server), "more than 8 MiB")
    assert len(server.requests) == 1


# ---- The answer --------------------------------------------------------------------------------


def test_f15_a_valid_prefix_is_no_verdict(server):
    server.do(*[complete(json.dumps(GOOD), "length")] * 3)
    fails(backend(server), r"cut off at 99 tokens \(finish_reason length\): .\"correct\": true")
    assert len(server.requests) == 3


@pytest.mark.parametrize("content", [" " * 4096, '{"correct": true,' + "\n" * 4096])
def test_f16_a_runaway_names_the_flag(server, content):
    server.do(*[complete(content, "length")] * 3)
    message = fails(backend(server), r"ran away into blanks until 99 tokens.* \(3 times\)")
    assert '--structured-outputs-config \'{"backend":"xgrammar","disable_any_whitesp' in message


@pytest.mark.parametrize(
    "unfit",
    [
        complete('{"correct": tr', "length"),
        complete(" " * 4096, "length"),
        complete('{"correct": true, "correct": true', "repetition"),
        complete(None),
        complete(""),
        complete(" \n"),
        complete([]),
        complete([{"type": "text", "text": "{}"}]),
        complete(None, "length", reasoning="hm, hm"),
    ],
)
def test_what_another_seed_may_better_is_asked_for_again(server, unfit):
    """At temperature 0 a repetition repeats itself for ever, and passes at another seed."""
    server.do(unfit, complete(json.dumps(GOOD)))
    reply = ask(backend(server))
    assert reply.data == GOOD
    first, second = server.chats
    assert first.body["seed"] != second.body["seed"]
    assert first.body["temperature"] < second.body["temperature"]
    assert reply.usage == {name: 2 * count for name, count in fake.USAGE.items()}


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": json.dumps(GOOD)}],
        [{"type": "text", "text": '{"correct": true, '}, {"type": "text", "text": '"score": 0.5}'}],
        [{"type": "output_text", "text": json.dumps(GOOD)}],
        [
            {"type": "thinking", "thinking": [{"type": "text", "text": '{"correct": false'}]},
            {"type": "text", "text": json.dumps(GOOD)},
        ],
    ],
)
def test_an_answer_in_parts_is_read(server, content):
    server.do(complete(content))
    assert ask(backend(server)).data == GOOD


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (complete(None, refusal="I cannot judge that"), "refused: I cannot judge that"),
        (complete(json.dumps(GOOD), refusal="no"), "refused: no"),
        (complete(json.dumps(GOOD), "abort"), "finish_reason 'abort'"),
        (complete(json.dumps(GOOD), "content_filter"), "finish_reason 'content_filter'"),
        (complete(json.dumps(GOOD), "tool_calls"), "finish_reason 'tool_calls'"),
        (complete(json.dumps(GOOD), None), "finish_reason None"),
        (complete({"text": "{}"}), "not a chat completion"),
        (complete(["{}"]), "not a chat completion"),
        (status(200, '{"choices": []}'), "not a chat completion"),
        (status(200, '{"choices": [{}, {}]}'), "not a chat completion"),
        (status(200, '{"choices": [{"message": null, "finish_reason": "stop"}]}'), "not a chat"),
        (status(200, '{"error": {"message": "out of memory"}}'), "completion: .*out of memory"),
        (status(200, "<html>"), "not a chat completion: <html>"),
        (status(200, "[" * 100_000), "not a chat completion"),
        (status(200, b"\xff\xfe"), "not a chat completion"),
        (status(200, ""), "not a chat completion"),
    ],
)
def test_f17_what_is_no_answer_is_an_error(server, behaviour, message):
    server.do(behaviour)
    fails(backend(server), f"backend judge: verify: .*{message}")
    assert len(server.requests) == 1


WRONG = [
    '{"correct": true, "score": NaN}',
    '{"correct": true, "score": 1.7}',
    '{"correct": true, "score": "0.5"}',
    '{"correct": "yes", "score": 1}',
    '{"correct": 1, "score": 1}',
    '{"correct": false, "score": 1, "correct": true}',
    '```json\n{"correct": true, "score": 1}\n```',
    '<think>It is</think>{"correct": true, "score": 1}',
    '{"correct": true, "score": 1} That is my verdict.',
    '{"correct": true}',
    '{"correct": true, "score": 1, "": "open"}',
    '[{"correct": true, "score": 1}]',
    '"correct"',
]


@pytest.mark.parametrize("content", WRONG)
def test_f18_wrong_json_is_asked_for_again_at_most_twice(server, content):
    server.do(*[complete(content)] * 5)
    fails(backend(server), r"no valid reply in 3 tries .before: invalid reply: .* .3 times..$")
    assert len(server.requests) == 3


def test_f18_another_try_has_a_new_seed_and_a_higher_temperature(server):
    server.do(complete(WRONG[0]), status(500), complete(WRONG[1]), complete(json.dumps(GOOD)))
    reply = ask(backend(server), question(sampling={"seed": 5, "temperature": 0.2}))
    assert reply.data == GOOD
    sent = [(chat.body["seed"], chat.body["temperature"]) for chat in server.chats]
    assert sent == [(5, 0.2), (1_000_008, 0.5), (1_000_008, 0.5), (2_000_011, 0.8)]
    assert sent == [(attempt.seed, attempt.temperature) for attempt in reply.attempts]
    outcomes = [re.split(r"[: ]", attempt.outcome)[0] for attempt in reply.attempts]
    assert outcomes == ["invalid", "HTTP", "invalid", "ok"]
    assert reply.usage == {name: 3 * count for name, count in fake.USAGE.items()}
    assert "NaN" in json.loads(reply.attempts[0].body)["choices"][0]["message"]["content"]


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize(("finish", "tries"), [("stop", 1), ("length", 3)])
def test_f19_reasoning_is_never_read(server, field, finish, tries):
    server.do(*[complete(None, finish, **{field: json.dumps(GOOD)})] * tries)
    message = fails(backend(server), "--reasoning-parser of this model")
    assert "enable_thinking = false" in message
    assert len(server.requests) == tries


def test_reasoning_beside_an_answer_is_ignored(server):
    server.do(complete(json.dumps(GOOD), reasoning='{"correct": false, "score": 0}'))
    assert ask(backend(server)).data == GOOD


def test_an_unlinted_schema_is_a_bug_of_ours(server):
    with pytest.raises(ValueError, match="needs properties"):
        ask(backend(server), question(shape=ReplyData))
    assert not server.requests


# ---- Before work -------------------------------------------------------------------------------


def check(chat):
    async def once():
        try:
            await chat.check()
        finally:
            await chat.aclose()

    asyncio.run(once())


def test_check_matches_the_model_and_asks_about_an_image(server):
    check(backend(server))
    models, canary = server.requests
    assert (models.method, models.path) == ("GET", "/v1/models")
    image, text = canary.body["messages"][1]["content"]
    assert image["type"] == "image_url"
    assert text["type"] == "text"


def test_the_test_question_asks_as_the_roles_ask(server):
    """Every keyword of theirs, so that a server which refuses one is found out before any work."""
    check(backend(server))
    asked = server.chats[0].body
    assert asked["max_tokens"] == 1024, "room for a model that thinks, as much as a verdict has"
    sent = asked["response_format"]["json_schema"]["schema"]

    def keywords(schema):
        inner = [*schema.get("properties", {}).values(), *filter(None, [schema.get("items")])]
        return {(schema["type"], key) for key in schema} | set().union(*map(keywords, inner))

    roles = {"checklist": _ChecklistData, "caption": _CaptionData, "propose": _SHAPES["caption"]}
    for shape in (*roles.values(), _verdict_shape(2)):
        wanted = keywords(without(json_schema(shape), DIALECTS["vllm"].withheld))
        assert wanted <= keywords(sent)


def test_a_server_that_refuses_the_schema_is_found_out_with_what_to_do(server):
    refusal = '{"error": {"message": "response_format.type: expected text or json_object"}}'
    server.do(*[status(500, refusal)] * 4)
    with pytest.raises(BackendError, match=re.escape("try backends.judge.response_format")):
        check(backend(server))


def test_a_model_that_refuses_a_temperature_is_told_of_omit(server):
    server.do(status(400, '{"error": {"message": "Unsupported parameter: temperature"}}'))
    fails(backend(server), 'HTTP 400: .*; set backends.judge.temperature = "omit"')


def test_a_model_that_only_proposes_is_asked_without_an_image(server):
    settings = ChatBackendSettings(kind="vllm", model="qwen", base_url=server.base_url)
    check(open_backend("words", settings, sees=False))
    assert isinstance(server.chats[0].body["messages"][1]["content"], str)


def test_f21_a_wrong_model_stops_the_start(server):
    server.models = [{"id": "llama"}, {"id": "gemma"}]
    with pytest.raises(BackendError, match="check: model 'qwen' is not served; served: gemma, lla"):
        check(backend(server))
    assert not server.chats


def test_f21_something_else_on_that_port(server):
    server.models = ["qwen"]
    with pytest.raises(BackendError, match="/models is not a list of models"):
        check(backend(server))


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (status(400, "qwen is not a multimodal model"), "check: HTTP 400: qwen is not a multimod"),
        (complete(" " * 64, "length"), "check: .*disable_any_whitespace"),
        (complete(None, reasoning="hm"), "check: .*reasoning"),
    ],
)
def test_the_canary_finds_what_the_list_of_models_hides(server, behaviour, message):
    server.do(*[behaviour] * 3)
    with pytest.raises(BackendError, match=message):
        check(backend(server))


# ---- A server that loads, or hangs -------------------------------------------------------------


LOADING = status(503, '{"error": {"message": "Loading model"}}')


def test_a_server_that_loads_is_waited_for_within_the_timeout(server):
    server.do(*[LOADING] * 9, complete(json.dumps(GOOD)))
    waits = Waits()
    assert ask(backend(server, waits=waits, timeout=120)).data == GOOD
    assert waits == [0.5, 1, 2, 4, 8, 8, 8, 8, 8]


def test_and_no_longer(server):
    server.do(*[LOADING] * 9)
    chat = backend(server, waits=clock_moves, timeout=20)
    message = fails(chat, "Loading.*next try in 8 s is beyond the timeout")
    assert "(before: HTTP 503: " in message
    assert "(5 times)" in message


def test_waiting_for_a_server_that_loads_uses_up_no_retries(server):
    server.do(*[LOADING] * 5, status(500), status(500), complete(json.dumps(GOOD)))
    assert ask(backend(server, retries=2)).data == GOOD


def test_a_server_that_asks_to_be_called_at_once_is_not_hammered(server):
    server.do(*[status(503, Retry_After="0")] * 6, complete(json.dumps(GOOD)))
    waits = Waits()
    ask(backend(server, waits=waits, timeout=120))
    assert waits == [0.0, 0.0, 0.0, 0.5, 0.5, 0.5]


def together(chat, count):
    async def all_of_them():
        try:
            questions = [chat.complete(question()) for _ in range(count)]
            return await asyncio.gather(*questions, return_exceptions=True)
        finally:
            await chat.aclose()

    return asyncio.run(all_of_them())


def test_a_server_of_others_that_hangs_ends_the_run_after_one_look(server):
    """Every prompt that is left would cost its whole timeout."""
    server.do(*[fake.hang] * 4)
    server.hang_at_models = True
    errors = together(backend(server, timeout=0.3), 4)
    assert all(isinstance(error, BackendLostError) for error in errors)
    assert BackendLostError.ends_run
    assert "no answer within 0.3 s (timeout), and none to a test question" in str(errors[0])
    assert len(server.requests) - len(server.chats) == 1


def test_a_question_that_takes_too_long_is_one_prompt_s_failure(server):
    server.do(fake.hang)
    chat, asked = backend(server, timeout=0.3), []

    async def answers_well(base):
        asked.append(base)

    chat._ready = answers_well
    [error] = together(chat, 1)
    assert not isinstance(error, BackendLostError)
    assert str(error) == "backend judge: verify: no answer within 0.3 s (timeout)"
    assert asked == [server.base_url]


# ---- Settings, keys, fingerprints --------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://192.0.2.1:8000/v1", "192.0.2.1 is beyond this machine"),
        ("https://api.openai.com/v1", "api.openai.com is beyond this machine"),
        ("http://127.0.0.1.example.com/v1", "beyond this machine"),
        ("http://[2001:db8::1]/v1", "beyond this machine"),
        ("http://user:secret@127.0.0.1/v1", "holds a password"),
        ("http://127.0.0.1/v1?key=secret", "is not like"),
        ("ftp://127.0.0.1/v1", "is not like"),
        ("127.0.0.1:8000/v1", "is not"),
        ("", "is not like"),
    ],
)
@pytest.mark.parametrize("kind", ["vllm", "openai"])
def test_addresses_that_are_not_called(address, message, kind):
    settings = ChatBackendSettings(kind=kind, model="m", base_url=address)
    with pytest.raises(ConfigError, match=re.escape("backends.judge.base_url: ")) as caught:
        ChatBackend("judge", settings)
    assert re.search(message, str(caught.value))
    if "beyond" in message:
        assert 'kind = "openai" and allow_network = true' in str(caught.value)


@pytest.mark.parametrize(
    ("address", "instead"),
    [
        ("http://0.0.0.0:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://[::]:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://0:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://0.0:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://[::ffff:0.0.0.0]:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://0.0.0.0/v1", "http://127.0.0.1/v1"),
    ],
)
@pytest.mark.parametrize("allowed", [False, True])
def test_where_a_server_listens_is_no_address_to_call(address, instead, allowed):
    with pytest.raises(ConfigError) as caught:
        check_address(address, allow_network=allowed)
    assert str(caught.value).endswith(f"write {instead}")
    assert "allow_network" not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "[::1]"])
def test_loopback_needs_no_permission(host):
    address = f"http://{host}:8000/v1"
    assert check_address(address + "/", allow_network=False) == address


def test_the_network_needs_permission():
    address = "https://api.openai.com/v1"
    assert check_address(address, allow_network=True) == address


@pytest.mark.parametrize("key", ["model", "messages", "stream", "temperature", "max_tokens"])
def test_extra_body_cannot_take_over(server, key):
    with pytest.raises(ConfigError, match=rf"backends\.judge\.extra_body: {key} cannot be set"):
        backend(server, extra_body={key: 1})


def test_extra_body_must_be_json(server):
    with pytest.raises(ConfigError, match=r"backends\.judge\.extra_body: "):
        backend(server, extra_body={"a": float("nan")})


@pytest.mark.parametrize("value", [None, "", "  ", "two words", "schlüssel", "a\x00b"])
def test_a_key_that_cannot_be_sent(server, monkeypatch, value):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    if value is not None and "\x00" not in value:
        monkeypatch.setenv("JUDGE_KEY", value)
    message = fails(backend(server, api_key_env="JUDGE_KEY"), "environment variable JUDGE_KEY")
    if value and value.strip():
        assert value not in message
    assert not server.requests


def test_f32_the_key_is_nowhere_to_be_read(server, monkeypatch, caplog, capfd):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    said = []
    echo = f'{{"error": "bad key {KEY}"}}'
    for behaviour in (
        status(401, echo),
        status(500, echo, X_Key="hidden"),
        status(302, Location=f"http://127.0.0.1/{KEY}"),
        complete(f"not JSON {KEY}"),
        complete(None, refusal=KEY),
        status(200, KEY),
        fake.drop,
        fake.hang,
    ):
        server.do(behaviour)
        chat = backend(server, api_key_env="JUDGE_KEY", retries=0, timeout=0.5)
        try:
            reply = ask(chat)
        except BackendError as error:
            said += traceback.format_exception(error)
        else:
            said.append(repr(reply))
        said += [repr(chat), repr(vars(chat)), repr(vars(chat.settings)), chat.fingerprint()]
    said += [record.getMessage() for record in caplog.records]
    said += capfd.readouterr()
    assert all(request.headers["Authorization"] == f"Bearer {KEY}" for request in server.requests)
    assert len(server.requests) > 8
    assert not [text for text in said if KEY in text]


def test_fingerprints_follow_what_decides_answers(server):
    plain = backend(server).fingerprint()
    assert plain.startswith("vllm:")
    assert backend(server, retries=9, timeout=1).fingerprint() == plain
    changed = [
        {"model": "other"},
        {"temperature": 0.1},
        {"response_format": "json_object"},
        {"max_pixels": 401_408},
        {"extra_body": {"top_p": 0.9}},
        {"kind": "openai"},
        {"base_url": server.base_url.replace("127.0.0.1", "localhost")},
    ]
    different = {backend(server, **change).fingerprint() for change in changed}
    assert len(different | {plain}) == 8


def test_the_fingerprint_knows_the_served_model(server):
    def checked():
        chat = backend(server)
        check(chat)
        return chat.fingerprint()

    first = checked()
    server.models[0]["created"] = 1234
    assert checked() == first
    server.models[0]["root"] = "/models/other"
    assert checked() != first


# ---- A server of ours --------------------------------------------------------------------------


class Nursed:
    """Stands for VllmServer: a fake server that can die and come back."""

    def __init__(self, fake_server):
        self.fake = fake_server
        self.calls = []
        self.slow = 0.0
        self.revived = []

    async def start(self):
        self.calls.append("start")
        await clock_moves(self.slow)
        return self.fake.base_url

    async def ensure(self):
        self.calls.append("ensure")
        return self.fake.base_url

    async def revive(self):
        self.calls.append("revive")
        return self.revived.pop(0)

    async def stop(self):
        self.calls.append("stop")


def nursed(server, **changes):
    settings = {"kind": "vllm", "model": "qwen", "server": {"model": "/m"}} | changes
    checked = ChatBackendSettings.model_validate(settings, strict=False)
    nurse = Nursed(server)
    return nurse, ChatBackend("judge", checked, server=lambda ready: nurse, sleep=Waits())


def test_a_server_is_started_once_watched_and_stopped(server):
    nurse, chat = nursed(server)

    async def session():
        await chat.check()
        server.do(fake.drop)
        await asyncio.gather(*(chat.complete(question()) for _ in range(2)))
        await chat.aclose()

    asyncio.run(session())
    assert nurse.calls == ["start", *["ensure"] * 3, "stop"]


def test_a_server_of_ours_is_ready_before_it_is_asked_and_not_asked_twice(server):
    nurse, chat = nursed(server)
    check(chat)
    assert (nurse.calls, server.requests) == (["start", "stop"], [])


def test_a_question_is_asked_anew_of_a_server_that_hung_and_was_started_again(server):
    nurse, chat = nursed(server, timeout=3)
    nurse.revived = [True]
    server.do(fake.hang)
    assert ask(chat).data
    assert nurse.calls == ["start", "revive", "ensure", "stop"]


def test_and_not_of_one_that_was_only_slow(server):
    nurse, chat = nursed(server, timeout=0.3)
    nurse.revived = [False]
    server.do(fake.hang)
    fails(chat, r"no answer within 0\.3 s \(timeout\)$")
    assert nurse.calls == ["start", "revive", "stop"]


def test_starting_is_not_on_the_clock_of_the_answer(server):
    nurse, chat = nursed(server, timeout=30)
    nurse.slow = 60.0
    assert ask(chat).data
    nurse, chat = nursed(server, timeout=0.2)
    nurse.revived = [False]
    server.do(fake.hang)
    fails(chat, r"no answer within 0\.2 s")


def test_nothing_starts_once_it_is_closed(server):
    """A call between two tries would start a server that nobody stops."""
    nurse, chat = nursed(server)
    assert ask(chat).data
    fails(chat, "it was closed meanwhile")
    assert nurse.calls == ["start", "stop", "stop"]


def test_a_key_goes_encrypted_or_not_at_all(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    values = {"kind": "openai", "model": "m", "allow_network": True, "api_key_env": "JUDGE_KEY"}
    with pytest.raises(ConfigError, match="unencrypted beyond this machine; use https"):
        ChatBackend("judge", ChatBackendSettings(base_url="http://lab.example/v1", **values))
    ChatBackend("judge", ChatBackendSettings(base_url="https://lab.example/v1", **values))
    ChatBackend("judge", ChatBackendSettings(base_url="http://127.0.0.1:9/v1", **values))


def test_a_server_that_cannot_start_speaks_for_itself(server):
    nurse, chat = nursed(server)

    async def broken():
        raise BackendError("backend judge: vLLM ended with code 1")

    nurse.start = broken
    fails(chat, "^backend judge: vLLM ended with code 1$")
    assert nurse.calls == ["stop"]


def test_either_an_address_or_a_server(server):
    settings = ChatBackendSettings(kind="vllm", model="m", base_url=server.base_url)
    with pytest.raises(ConfigError, match="needs a base_url or a server"):
        ChatBackend("judge", settings, server=lambda ready: Nursed(server))


def test_every_kind_has_a_dialect():
    assert DIALECTS.keys() == {"vllm", "openai"}

"""The scripted backend: replays in order, raises on demand, and never makes an answer up."""

from __future__ import annotations

import asyncio
import json

import pytest
from pydantic import BaseModel

from npc_local.backends.base import Request
from npc_local.backends.scripted import ScriptedBackend
from npc_local.core.config.settings import ScriptedBackendSettings
from npc_local.core.errors import BackendError, ConfigError
from npc_local.run.factory import open_backend

VERIFY = Request(role="verify", fields={}, system="", user="", shape=BaseModel)
CAPTION = Request(role="caption", fields={}, system="", user="", shape=BaseModel)


def ask(backend, request):
    return asyncio.run(backend.complete(request))


def test_one_queue_a_role_in_order():
    backend = ScriptedBackend("s", {"verify": [{"n": 1}, {"n": 2}], "caption": [{"n": 3}]})
    asyncio.run(backend.check())
    replies = [ask(backend, request) for request in (VERIFY, CAPTION, VERIFY)]
    assert [reply.data["n"] for reply in replies] == [1, 3, 2]
    assert json.loads(replies[0].raw) == {"n": 1}
    assert backend.requests == [VERIFY, CAPTION, VERIFY]


@pytest.mark.parametrize("prompt", ["", "three clocks", "x" * 10_000])
def test_any_prompt_is_accepted(prompt):
    ScriptedBackend("s", {}).accepts(prompt)


def test_an_error_is_raised_and_used_up():
    backend = ScriptedBackend("s", {"verify": [{"error": "server on fire"}, {"n": 2}]})
    with pytest.raises(BackendError, match="backend s: verify: server on fire"):
        ask(backend, VERIFY)
    assert ask(backend, VERIFY).data == {"n": 2}


@pytest.mark.parametrize("replies", [{}, {"verify": []}, {"caption": [{"n": 1}]}])
def test_exhausted(replies):
    backend = ScriptedBackend("s", replies)
    with pytest.raises(BackendError, match="backend s: verify: no scripted reply is left"):
        ask(backend, VERIFY)
    assert backend.requests == [VERIFY]


def test_fingerprint_is_of_the_script():
    script = {"verify": [{"n": 1}], "caption": []}
    backend = ScriptedBackend("s", script)
    before = backend.fingerprint()
    ask(backend, VERIFY)
    assert backend.fingerprint() == before
    assert ScriptedBackend("t", dict(reversed(script.items()))).fingerprint() == before
    assert ScriptedBackend("s", {"verify": [{"n": 2}]}).fingerprint() != before


def test_open_backend_reads_the_file(tmp_path):
    path = tmp_path / "replies.json"
    path.write_text('{"verify": [{"reason": "né"}]}', encoding="utf-8")
    backend = open_backend("replay", ScriptedBackendSettings(replies=path))
    assert backend.name == "replay"
    assert ask(backend, VERIFY).data == {"reason": "né"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "must map roles"),
        (
            '{"grade": []}',
            "unknown role 'grade'; known: checklist, verify, caption, propose, judge",
        ),
        ('{"verify": {}}', "verify: must be a list of objects"),
        ('{"verify": [3]}', "verify: must be a list of objects"),
    ],
)
def test_a_bad_file_is_a_config_error(tmp_path, text, message):
    path = tmp_path / "replies.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"backend s: .*{message}"):
        ScriptedBackend.from_file("s", path)


def test_a_missing_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.json: no such file"):
        ScriptedBackend.from_file("s", tmp_path / "none.json")

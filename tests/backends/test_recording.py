"""What agents answer is kept word for word, failures included."""

from __future__ import annotations

import asyncio
import json

import pytest

from npc_local.backends.base import Request
from npc_local.backends.recording import RecordedBackend
from npc_local.backends.scripted import ScriptedBackend
from npc_local.core.errors import BackendError, StorageError

REQUEST = Request("caption", {"prompt": "two \udcff cats"}, "", "", {}, sampling={"seed": 3})


@pytest.fixture
def backend(tmp_path):
    replies = {"caption": [{"caption": "a cat"}, {"error": "down"}]}
    return RecordedBackend(ScriptedBackend("agents", replies), tmp_path / "logs" / "agents.jsonl")


def lines(backend):
    return [json.loads(line) for line in backend._path.read_text().splitlines()]


def test_answers_and_failures_are_kept_in_order(backend):
    assert not backend._path.parent.exists()
    reply = asyncio.run(backend.complete(REQUEST))
    with pytest.raises(BackendError, match="down"):
        asyncio.run(backend.complete(REQUEST))
    answered, failed = lines(backend)
    assert answered["raw"] == reply.raw == '{"caption": "a cat"}'
    assert answered.keys() >= {"finish_reason", "usage", "tries", "seconds"}
    assert (answered["role"], answered["sampling"]) == ("caption", {"seed": 3})
    assert "down" in failed["error"]


def test_a_file_that_cannot_be_written_is_an_error(backend):
    backend._path.parent.write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        asyncio.run(backend.complete(REQUEST))


def test_all_else_is_the_backend_s_own(backend):
    assert backend.name == "agents"
    assert backend.fingerprint() == backend._backend.fingerprint()
    backend.accepts("anything")
    asyncio.run(backend.check())
    asyncio.run(backend.aclose())

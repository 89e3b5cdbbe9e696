"""The product's own code against a real vLLM server. One start serves all tests of this file."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from typing import Annotated, Literal

import httpx2
import pytest
from PIL import Image, ImageDraw
from pydantic import Field

from npc_local.agents import describe, propose, verify
from npc_local.backends.base import Request
from npc_local.backends.schemas import NonEmpty, ReplyData
from npc_local.core.offline import egress
from npc_local.core.records import Caption, Checklist, Demand
from tests.air_gap import departures
from tests.real_vllm.conftest import skip


@pytest.fixture(scope="module")
def image() -> Image.Image:
    picture = Image.new("RGB", (224, 168), "white")
    ImageDraw.Draw(picture).ellipse((40, 40, 120, 120), fill="red")
    return picture


def test_it_is_ready(real):
    assert real.server.alive()
    assert len(real.processes()) >= 2
    real.runner.run(real.backend.check())
    assert len(real.backend.fingerprint()) > 64


def test_the_agents_answer(real, image):
    """Random weights: what is said means nothing, but each reply is whole and fits its schema."""
    backend, run = real.backend, real.runner.run
    claims = Checklist((Demand("there are two circles", "count"), Demand("one is red", "color")))
    verdict = run(verify(backend, "two circles, one red", claims, image))
    assert len(verdict.claims) == 2
    assert 0 <= verdict.model_score <= 1
    caption = run(describe(backend, image))
    assert isinstance(caption.text, str)
    proposal = run(propose(backend, "two circles", Caption("One circle."), "one circle", 3))
    assert len(proposal.negatives) == 3


class Answer(ReplyData):
    """Every keyword that the roles' schemas have."""

    claims: list[bool] = Field(min_length=3)
    word: NonEmpty
    kind: Literal["targeted", "untargeted"]
    score: Annotated[float, Field(ge=0, le=1)]


def test_every_answer_says_that_it_is_complete(real, image):
    for seed in range(3):
        sampling = {"seed": seed, "temperature": 1.0, "max_tokens": 512}
        question = Request("verify", {}, "Answer in JSON.", "Go.", Answer, (image,), sampling)
        reply = real.runner.run(real.backend.complete(question))
        assert reply.finish_reason == "stop"
        assert json.loads(reply.raw) == reply.data
        assert reply.usage["prompt_tokens"] > 48  # the image alone is 8 x 6 patches


def test_questions_may_overlap(real, image):
    async def ask() -> list[Caption]:
        return await asyncio.gather(*(describe(real.backend, image) for _ in range(4)))

    assert len(real.runner.run(ask())) == 4


def test_it_answers_nobody_elsewhere_and_fetches_nothing(real):
    """The media domain is closed, so an address is refused before anything is looked up."""
    listening = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True)
    port = real.server.base_url.split(":")[2].removesuffix("/v1")
    if listening.returncode == 0:
        lines = [line for line in listening.stdout.splitlines() if f":{port} " in line]
        assert all("127.0.0.1:" in line for line in lines)
    base = real.server.base_url
    for url in ("http://192.0.2.1/x.png", "file:///etc/hostname"):
        part = {"type": "image_url", "image_url": {"url": url}}
        message = {"role": "user", "content": [part]}
        body = {"model": "tiny-qwen", "messages": [message], "max_tokens": 8}
        answer = httpx2.post(f"{base}/chat/completions", json=body, trust_env=False, timeout=30)
        assert answer.status_code >= 400
        assert "allowed domains" in answer.text or "Cannot load local files" in answer.text
    root = base.removesuffix("/v1")
    assert httpx2.get(f"{root}/docs", trust_env=False).status_code == 404
    asleep = httpx2.post(f"{root}/sleep", trust_env=False)
    assert asleep.status_code == 404  # no development routes


def test_it_is_stopped_and_nothing_is_left(real):
    """Last but one: ends the server."""
    begin = time.monotonic()
    real.runner.run(real.backend.aclose())
    assert time.monotonic() - begin < 40
    assert not real.server.alive()
    assert real.processes() == []


def test_no_process_of_it_tried_to_leave_this_machine(real):
    """Last: reads the trace of its whole life, all processes included."""
    if real.trace is None:
        skip("no trace of a real server: strace is missing")
    trace = real.trace.read_text(errors="replace")
    assert "127.0.0.1" in trace  # it was seen to talk at all
    assert departures(trace) == []
    assert egress.report()["blocked"] == []

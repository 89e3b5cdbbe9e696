"""Who works when: an image that nobody waits for any more ends early, and frees its generator."""

from __future__ import annotations

import asyncio
import threading

import pytest

from npc_local.core.errors import GeneratorError
from npc_local.core.records import Shot
from npc_local.run.executor import Executor
from tests.run.journal.world import Images, Log, cast_of

SHOT = Shot("two red circles", None, 7)
STEPS = 1000


class Denoising(Images):
    """Takes its denoising steps one by one, the first when it is let go."""

    def __init__(self, log):
        super().__init__(log)
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.done, self.ended = 0, []

    def generate(self, shot, on_step=None):
        self.begun.set()
        assert self.go_on.wait(60)
        try:
            for self.done in range(1, STEPS + 1):
                on_step(self.done, STEPS)
        except GeneratorError as error:
            self.ended.append(str(error))
            raise
        return super().generate(shot, on_step)


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "calls")


def test_an_image_that_is_cancelled_ends_at_its_next_denoising_step(log):
    async def scenario():
        generator = Denoising(log)
        executor = Executor(cast_of(log, generator=generator), agents=1)
        first = asyncio.create_task(executor.render(SHOT))
        await asyncio.to_thread(generator.begun.wait, 60)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first  # at once: the thread has not gone on yet
        assert generator.done == 0
        generator.go_on.set()
        render = await executor.render(SHOT)
        assert render.forwards == 10
        return generator

    generator = asyncio.run(scenario())
    assert generator.ended == ["interrupted"]
    assert len(log.lines()) == 1  # the first made no image


def test_the_watch_is_told_of_every_denoising_step(log):
    steps = []
    generator = Denoising(log)
    generator.go_on.set()
    executor = Executor(
        cast_of(log, generator=generator),
        agents=1,
        on_step=lambda done, total: steps.append((done, total)),
    )
    asyncio.run(executor.render(SHOT))
    assert steps == [(number, STEPS) for number in range(1, STEPS + 1)]


def test_a_fingerprint_is_computed_once_also_of_what_has_no_hash(log):
    class Unhashable(Images):
        __hash__ = None
        computed = 0

        def fingerprint(self):
            self.computed += 1
            return "images"

    async def scenario():
        generator = Unhashable(log)
        executor = Executor(cast_of(log, generator=generator), agents=1)
        found = [await executor.fingerprint(generator) for _ in range(3)]
        assert found == ["images"] * 3
        return generator.computed

    assert asyncio.run(scenario()) == 1

"""Many items at once: room, order, failures, ends, who waits for whom, and what stays in memory."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.throughput.simulated_models import Durations, SimulatedModels
from benchmarks.throughput.simulated_models import prompts as simulated_prompts
from npc_local.core.config.load import load_config
from npc_local.core.errors import (
    BackendError,
    ConfigError,
    DeviceLostError,
    GeneratorError,
    NpcError,
    PromptError,
    StorageError,
)
from npc_local.loop import correct
from npc_local.run.journal.journal import Journal
from npc_local.run.pool import default_in_flight, for_each, phased_in_flight, run_all
from npc_local.run.stages import Stages

NO_TIME = Durations(0, 0, 0, 0, 0, 0, 0)


def ignore(index, result):
    """Take nothing."""


@given(
    waits=st.lists(st.integers(0, 5), max_size=30),
    failing=st.sets(st.integers(0, 29)),
    in_flight=st.integers(1, 8),
)
def test_results_are_in_order_and_each_failure_is_its_own(waits, failing, in_flight):
    told = {}

    async def work(item):
        index, turns = item
        for _ in range(turns):
            await asyncio.sleep(0)
        if index in failing:
            raise BackendError(f"no {index}")
        return index

    items = list(enumerate(waits))
    found = asyncio.run(run_all(items, work, in_flight=in_flight, done=told.__setitem__))
    assert [str(one) if index in failing else one for index, one in enumerate(found)] == [
        f"no {index}" if index in failing else index for index, _ in items
    ]
    assert told == dict(enumerate(found))


def test_an_item_is_taken_when_there_is_room_for_it():
    taken, finished, ahead = [], [], []

    def items():
        for number in range(50):
            taken.append(number)
            ahead.append(len(taken) - len(finished))
            yield number

    async def work(number):
        ahead.append(len(taken) - len(finished))
        for _ in range(number % 4):
            await asyncio.sleep(0)

    asyncio.run(for_each(items(), work, in_flight=3, done=lambda index, _: finished.append(index)))
    assert taken == list(range(50))
    assert sorted(finished) == taken
    assert max(ahead) == 3


@pytest.mark.parametrize("kind", [StorageError, ConfigError, DeviceLostError])
def test_what_is_not_about_one_item_ends_all(kind):
    begun, dropped = [], []

    async def work(number):
        begun.append(number)
        if number == 2:
            raise kind("all of them")
        try:
            await asyncio.Event().wait()
        finally:
            dropped.append(number)

    with pytest.raises(kind, match="all of them"):
        asyncio.run(for_each(range(100), work, in_flight=3, done=ignore))
    assert begun == [0, 1, 2]
    assert sorted(dropped) == [0, 1]


@pytest.mark.parametrize("kind", [PromptError, BackendError, GeneratorError])
def test_what_is_about_one_item_ends_that_one(kind):
    async def work(number):
        if number == 1:
            raise kind("this one")
        return number

    first, error, last = asyncio.run(run_all(range(3), work, in_flight=1))
    assert (first, last) == (0, 2)
    assert isinstance(error, kind)


def test_a_bug_that_one_item_meets_stops_no_other(caplog):
    async def work(number):
        if number == 1:
            raise ZeroDivisionError("poison")
        return number

    first, error, last = asyncio.run(run_all(range(3), work, in_flight=1))
    assert (first, last) == (0, 2)
    assert isinstance(error, NpcError)
    assert (error.exit_code, str(error)) == (
        *(1, "a bug in npc-local or a library: ZeroDivisionError('poison')"),
    )
    [logged] = caplog.records
    assert "item 2" in logged.message
    assert logged.exc_info[0] is ZeroDivisionError


def test_an_error_of_whoever_takes_results_ends_all():
    async def work(number):
        return number

    def done(index, result):
        raise BackendError("not an item's")

    with pytest.raises(BackendError, match="not an item's"):
        asyncio.run(for_each(range(3), work, in_flight=1, done=done))


def test_whoever_cancels_waits_until_all_have_heard_of_it():
    heard = []

    async def work(number):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            heard.append(number)

    async def scenario():
        task = asyncio.create_task(for_each(range(9), work, in_flight=4, done=ignore))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(heard) == [0, 1, 2, 3]

    asyncio.run(scenario())


def test_no_room_at_all_is_a_mistake():
    with pytest.raises(ValueError, match="at least one"):
        asyncio.run(for_each([1], ignore, in_flight=0, done=ignore))


# ---------------------------------------------------------------- how many


def test_as_many_in_flight_as_help_and_fit():
    profile = load_config(None).profile("shapes")
    assert default_in_flight(profile, agents=4, generators=2) == 12
    assert phased_in_flight(1024, 1024, 5) == 56
    assert phased_in_flight(64, 64, 5) == 128
    assert phased_in_flight(4096, 4096, 50) == 8


# ---------------------------------------------------------------- prompts on one set of models


def searches(stages, prompts, in_flight, done=ignore):
    async def work(prompt):
        with stages.search():
            return await correct(prompt, stages, seed=0, candidates=5)

    return for_each(prompts, work, in_flight=in_flight, done=done)


def test_the_generator_works_while_all_agents_are_stuck():
    """As long as a prompt lacks its image, the generator makes images, whoever else waits."""

    class Stuck(SimulatedModels):
        async def complete(self, request):
            if request.role == "verify":
                await self.release.wait()
            return await super().complete(request)

        def generate(self, shot, on_step=None):
            self.loop.call_soon_threadsafe(self.made.release)
            return super().generate(shot, on_step)

    async def scenario():
        stuck = Stuck(NO_TIME)
        stuck.release, stuck.loop = asyncio.Event(), asyncio.get_running_loop()
        stuck.made = asyncio.Semaphore(0)
        stages = Stages(stuck.components(phased=False), agents=2)
        task = asyncio.create_task(
            searches(stages, [f"prompt {n} right at 0" for n in range(5)], 5)
        )
        # Two hold the agents, the others wait for them: all five have their image all the same.
        for _ in range(5):
            await asyncio.wait_for(stuck.made.acquire(), 60)
        assert stuck.calls["verify"] == 0
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(scenario())


def test_the_agents_work_while_the_generator_is_stuck():
    class Stuck(SimulatedModels):
        def generate(self, shot, on_step=None):
            if "prompt 1 " in shot.prompt:
                self.stuck.set()
                assert self.release.wait(60)
            return super().generate(shot, on_step)

        async def complete(self, request):
            found = await super().complete(request)
            if request.role == "propose":
                await asyncio.to_thread(self.stuck.wait, 60)
                self.release.set()  # prompt 0 came as far as this while prompt 1 had the generator
            return found

    stuck = Stuck(NO_TIME)
    stuck.stuck, stuck.release = threading.Event(), threading.Event()
    ends = {}
    prompts = ["prompt 0 right at 2", "prompt 1 right at 0"]
    stages = Stages(stuck.components(phased=False), agents=2)
    asyncio.run(searches(stages, prompts, 2, ends.__setitem__))
    assert [ends[index].status for index in (0, 1)] == ["corrected", "already-correct"]


@pytest.mark.parametrize("phased", [False, True])
def test_agents_are_as_many_at_once_as_allowed_and_no_more(phased):
    models = SimulatedModels(NO_TIME)
    ends = {}
    stages = Stages(models.components(phased=phased), agents=3)
    asyncio.run(searches(stages, simulated_prompts(30), 12, ends.__setitem__))
    assert models.most_agents == 3
    assert len(ends) == 30
    wanted = [int(prompt.split()[-1]) for prompt in simulated_prompts(30)]
    assert [len(ends[index].attempts) for index in range(30)] == [min(one, 5) for one in wanted]


def test_a_turn_serves_all_prompts_in_flight():
    """With all prompts in flight, the GPU changes hands twice an image of the longest search."""
    models = SimulatedModels(NO_TIME)
    stages = Stages(models.components(phased=True), agents=4)
    asyncio.run(searches(stages, [f"prompt {n} right at {n % 7}" for n in range(28)], 28))
    assert models.calls["image"] == 4 * (1 + 2 + 3 + 4 + 5 + 6 + 6)
    # Checklists; the original; five attempts: none of 28 prompts gets a turn of its own.
    assert models.calls["swap"] <= 1 + 2 * 6 + 4


def test_memory_stays_flat_over_thousands_of_prompts():
    assert growth(1_000, 5_000, None) < 4_000  # not even one block a prompt


def test_memory_stays_flat_with_a_journal(tmp_path):
    with Journal.open(tmp_path / "run", {}) as journal:
        assert growth(250, 1_000, journal) < 750


def growth(first, last, journal):
    """Return how many blocks of Python's allocator came to be used between two prompts."""
    models = SimulatedModels(NO_TIME)
    blocks = {}
    ended = 0

    def done(index, result):
        nonlocal ended
        assert result.status == "already-correct"
        ended += 1
        if ended in (first, last):
            gc.collect()
            blocks[ended] = sys.getallocatedblocks()

    async def scenario():
        stages = Stages(models.components(phased=False), journal, agents=4)
        prompts = (f"prompt {number} right at 0" for number in range(last))
        await searches(stages, prompts, 8, done)

    asyncio.run(scenario())
    assert models.calls["image"] == ended == last
    return blocks[last] - blocks[first]

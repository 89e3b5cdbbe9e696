"""Many who ask, one task: and how many of them wait for work, at every moment."""

from __future__ import annotations

import asyncio

import pytest

from npc_local.run.single_flight import SingleFlight


async def rounds():
    """Have everybody come as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_all_who_ask_meanwhile_share_a_task_and_the_next_begins_anew():
    async def scenario():
        shared, begun, go_on = SingleFlight(), [], asyncio.Event()

        async def work():
            begun.append(True)
            await go_on.wait()
            return len(begun)

        tasks = [asyncio.create_task(shared.result("k", work)) for _ in range(3)]
        await rounds()
        assert len(shared) == 1
        go_on.set()
        assert await asyncio.gather(*tasks) == [1, 1, 1]
        assert await shared.result("k", work) == 2
        assert len(shared) == 0

    asyncio.run(scenario())


def test_those_who_wait_count_while_their_task_is_at_work_and_not_a_moment_longer():
    async def scenario():
        looked_up, worked, kept = asyncio.Event(), asyncio.Event(), asyncio.Event()
        after = []

        async def work():
            await looked_up.wait()
            with shared.at_work("k"):
                await worked.wait()
            after.append(shared.waiting)
            await kept.wait()

        calls = []
        shared = SingleFlight(on_wait=lambda: calls.append(True))
        tasks = [asyncio.create_task(shared.result("k", work)) for _ in range(3)]
        await rounds()
        assert shared.waiting == 0
        looked_up.set()
        await rounds()
        assert shared.waiting == 3
        tasks.append(asyncio.create_task(shared.result("k", work)))
        tasks.pop(0).cancel()
        told = len(calls)
        await rounds()
        assert shared.waiting == 3
        assert len(calls) == told + 1  # of the one who came
        worked.set()
        await rounds()
        assert after == [0]
        kept.set()
        await asyncio.gather(*tasks)
        assert shared.waiting == 0

    asyncio.run(scenario())


def test_a_failure_is_everybody_s_and_nobody_s_afterwards():
    async def scenario():
        shared = SingleFlight()

        async def fails():
            await asyncio.sleep(0)
            with shared.at_work("k"):
                raise ZeroDivisionError("oops")

        both = await asyncio.gather(
            *(shared.result("k", fails) for _ in range(2)), return_exceptions=True
        )
        assert [repr(error) for error in both] == ["ZeroDivisionError('oops')"] * 2
        assert (len(shared), shared.waiting) == (0, 0)

    asyncio.run(scenario())


def test_a_task_that_nobody_waits_for_is_cancelled_before_the_last_one_goes():
    async def scenario():
        shared, ended = SingleFlight(), []

        async def work():
            try:
                with shared.at_work("k"):
                    await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append(True)

        task = asyncio.create_task(shared.result("k", work))
        await rounds()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]
        assert (len(shared), shared.waiting) == (0, 0)

    asyncio.run(scenario())

"""Work in another thread's event loop: results, errors, interrupts, and nothing left behind."""

from __future__ import annotations

import asyncio
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from npc_local.core.background_loop import BackgroundLoop


@pytest.fixture
def loop():
    background = BackgroundLoop()
    yield background
    background.close()
    assert "loop" not in {thread.name for thread in threading.enumerate()}


def test_results_and_errors_are_those_of_the_work(loop):
    async def fails():
        raise ZeroDivisionError("oops")

    async def cancelled():
        raise asyncio.CancelledError

    assert loop.run(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ZeroDivisionError, match="oops"):
        loop.run(fails())
    with pytest.raises(asyncio.CancelledError):
        loop.run(cancelled())


def test_several_threads_have_work_done_at_once(loop):
    async def meet():
        await barrier.wait()
        return threading.current_thread().name

    async def new_barrier():
        return asyncio.Barrier(3)

    barrier = loop.run(new_barrier())
    with ThreadPoolExecutor(3) as threads:
        assert [*threads.map(lambda _: loop.run(meet()), range(3))] == ["loop"] * 3


def interrupt():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_whoever_is_interrupted_has_the_work_cancelled_and_waits_for_its_end(loop):
    ended = []

    async def work():
        interrupt()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        loop.run(work())
    assert ended == [True]
    assert loop.run(asyncio.sleep(0, "goes on")) == "goes on"


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_is_heeded_also_while_the_work_is_handed_over(loop, monkeypatch, when):
    """As on a busy machine, where the work is at its middle before its caller waits for it."""
    hand_over, cancelled = loop._loop.call_soon_threadsafe, threading.Event()

    async def work():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def interrupted(callback, *arguments):
        monkeypatch.undo()
        if when == "after":
            hand_over(callback, *arguments)
            loop.run(asyncio.sleep(0))  # by then, it has begun
        raise KeyboardInterrupt

    monkeypatch.setattr(loop._loop, "call_soon_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.run(work())
    assert cancelled.is_set() is (when == "after")

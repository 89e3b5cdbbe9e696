"""Work in a thread of one's own, for whoever waits in the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from contextvars import copy_context
from typing import TypeVar

R = TypeVar("R")


async def run_in(
    thread: Executor, work: Callable[[], R], *, ended: Callable[[], object] | None = None
) -> R:
    """Have `thread` do `work` and return its result.

    Whoever is cancelled stops waiting at once; the work goes on to its end all the same, unlike
    with `loop.run_in_executor`, which takes back what has not begun. `ended` is called in the event
    loop when the work is over, waited for or not; whoever waits goes on first.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[R] = loop.create_future()

    def settle(job: Future[R]) -> None:
        # Nobody waits any more, if it is done: not asked first, because a Ctrl-C may come between.
        with suppress(asyncio.InvalidStateError):
            if (failure := job.exception()) is not None:
                done.set_exception(failure)
            else:
                done.set_result(job.result())
        if ended is not None:
            loop.call_soon(ended)

    def tell(job: Future[R]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, job)

    thread.submit(copy_context().run, work).add_done_callback(tell)
    return await done

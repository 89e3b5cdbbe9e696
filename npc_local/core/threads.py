"""The event loop of a command, and work in threads for whoever waits in it."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from types import FrameType
from typing import Any, TypeVar

R = TypeVar("R")
_HEARD_WITHIN = 0.5  # seconds that a Ctrl-C may take to reach the event loop


def run_interruptibly(work: Coroutine[Any, Any, R]) -> R:
    """Run `work` like `asyncio.run`, but hear a Ctrl-C wherever the program is.

    The first one cancels `work`, which may put things in order. A second one is a
    KeyboardInterrupt at once, and so is the first one while the event loop stands still, because a
    library is imported or a model read in its thread. What other threads are at is not waited for.

    Raises:
        KeyboardInterrupt: there was a Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(work)
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        interrupt = _Interrupt(loop)
        before = signal.getsignal(signal.SIGINT)
        if before is not signal.SIG_IGN:  # as in a script's background job: it stays so
            signal.signal(signal.SIGINT, interrupt)
        try:
            return runner.run(interrupt.watched(work))
        except (asyncio.CancelledError, KeyboardInterrupt) as error:
            # Leaving the loop waits for its executor: for an idle one instead.
            loop.set_default_executor(ThreadPoolExecutor(1))
            if interrupt.presses:
                raise KeyboardInterrupt from error
            raise
        finally:
            signal.signal(signal.SIGINT, before)
            interrupt.over()


class _Interrupt:
    """A handler of SIGINT that cancels a task, by way of the event loop if it runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.presses = 0
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None
        self._pressed, self._heard = threading.Event(), threading.Event()
        threading.Thread(target=self._insist, daemon=True).start()

    async def watched(self, work: Coroutine[Any, Any, R]) -> R:
        """Do the work that is to be cancelled."""
        self._task = asyncio.current_task()
        return await work

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Hear one Ctrl-C."""
        self.presses += 1
        if self.presses > 1 or self._task is None or self._task.done():
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(self._cancel)
        self._pressed.set()

    def over(self) -> None:
        """Let the thread end."""
        self._heard.set()
        self._pressed.set()

    def _cancel(self) -> None:
        self._heard.set()
        if self.presses == 1 and self._task is not None:
            self._task.cancel()

    def _insist(self) -> None:
        """Press once more where the loop does not get to hear it."""
        self._pressed.wait()
        main = threading.main_thread().ident
        if not self._heard.wait(_HEARD_WITHIN) and self.presses == 1 and main is not None:
            signal.pthread_kill(main, signal.SIGINT)


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

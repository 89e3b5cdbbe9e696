"""An event loop in a thread of its own, for code that is not asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

R = TypeVar("R")


class BackgroundLoop:
    """Runs coroutines for any number of threads, until it is closed."""

    def __init__(self) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Have the loop do some work, and return its result.

        Whoever is interrupted meanwhile, by a Ctrl-C for example, has the work cancelled, and goes
        on when it has ended.
        """
        result: Future[R] = Future()
        tasks: list[asyncio.Task[R]] = []

        def begin() -> None:
            tasks.append(self._loop.create_task(work))
            tasks[0].add_done_callback(settle)

        def settle(task: asyncio.Task[R]) -> None:
            if task.cancelled():
                result.set_exception(asyncio.CancelledError())
            elif (failure := task.exception()) is not None:
                result.set_exception(failure)
            else:
                result.set_result(task.result())

        def stop() -> None:
            if tasks:
                tasks[0].cancel()
            else:  # interrupted before it was even asked for
                work.close()
                result.set_exception(asyncio.CancelledError())

        try:
            self._loop.call_soon_threadsafe(begin)
            return result.result()
        finally:
            if not result.done():
                self._loop.call_soon_threadsafe(stop)
                wait([result])

    def close(self) -> None:
        """End the thread; nothing may be under way any more."""
        self.run(self._loop.shutdown_asyncgens())
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

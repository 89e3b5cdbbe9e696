"""One GPU that the models of two tenants hold in turn: the images' and the agents', never both.

`gpu = "phased"` in a profile. A tenant keeps the GPU until the other wants it, its own work is
done, and everybody in flight waits; then it leaves its memory before the other enters. What
entering and leaving mean is each tenant's matter: moving a pipeline, starting or waking a server.
When the GPU is asked for is left to `executor`, who is in flight to `stages`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who may hold the GPU: a name, how it enters, and how it leaves. Both may raise `NpcError`."""

    name: str
    enter: Callable[[], Coroutine[Any, Any, None]]
    leave: Callable[[], Coroutine[Any, Any, None]]


class GpuSharing:
    """Leases the GPU to one tenant at a time; work of the same tenant may overlap.

    Attributes:
        images: the generator, and the scorer.
        agents: the servers of the agents.
        served: the backends whose models are on the GPU, by name.
        quiet: tells whether all who may want a lease next have asked for it. Until then the GPU
            stays where it is: an exchange takes long, and the next to ask may be of the same
            tenant. `look_again` whenever that may have become true.
    """

    def __init__(
        self, images: Tenant, agents: Tenant, served: frozenset[str] = frozenset()
    ) -> None:
        """Nobody holds the GPU yet."""
        self.images = images
        self.agents = agents
        self.served = served
        self.quiet: Callable[[], bool] = lambda: True
        self._holder: Tenant | None = None
        self._ready = False  # whether the holder has entered in full
        self._working = 0
        self._changed = asyncio.Condition()
        self._telling: asyncio.Future[None] | None = None  # held, or it might be collected

    async def acquire(self, tenant: Tenant) -> None:
        """Wait for the other tenant's work to end, and hold the GPU for this one until `release`.

        A tenant that could not enter in full may have part of the GPU: it has to leave before the
        other enters, and enters again before it works.
        """
        async with self._changed:
            await self._changed.wait_for(
                lambda: (
                    (self._holder is tenant and self._ready)
                    or (not self._working and (self._holder is None or self.quiet()))
                )
            )
            if self._holder is not tenant or not self._ready:
                await _to_its_end(self._exchange(tenant))
            self._working += 1

    async def _exchange(self, tenant: Tenant) -> None:
        """Have the holder leave and `tenant` enter."""
        if self._holder is not None and self._holder is not tenant:
            self._ready = False
            await self._holder.leave()
        self._holder, self._ready = tenant, False
        await tenant.enter()
        self._ready = True

    def release(self) -> None:
        """Be done with some work; the tenant keeps the GPU until the other wants it."""
        self._working -= 1
        self.look_again()

    def look_again(self) -> None:
        """Have those who wait look whether they may hold the GPU now."""
        self._telling = asyncio.ensure_future(self._tell())

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    @asynccontextmanager
    async def lease(self, tenant: Tenant) -> AsyncIterator[None]:
        """Hold the GPU for `tenant` while inside."""
        await self.acquire(tenant)
        try:
            yield
        finally:
            self.release()

    def lease_for(self, backend: str | None) -> AbstractAsyncContextManager[None]:
        """Return the lease that a backend needs: none if its model is elsewhere, or it has none."""
        if backend in self.served:
            return self.lease(self.agents)
        return nullcontext()

    async def close(self) -> None:
        """Take the GPU from whoever holds it, once its work is done."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._working)
            if self._holder is not None:
                await _to_its_end(self._holder.leave())
            self._holder, self._ready = None, False


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await work that must not be left half done: who is cancelled meanwhile still waits for it."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(Exception):  # the cancellation is what the caller hears of
            await task
        raise

"""Who shares a GPU: the generator and the scorer on one side, the agents' servers on the other.

When each of them holds it is left to `gpu_sharing`.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from npc_local.backends.base import Backend
from npc_local.core.config.settings import BackendSettings
from npc_local.core.errors import ConfigError
from npc_local.generator.base import Generator, Movable
from npc_local.run.gpu_sharing import GpuSharing, Tenant
from npc_local.salience.base import Scorer


class Server(Protocol):
    """A server of ours that can give its GPU back."""

    async def wake(self) -> None:
        """Take the GPU, started if need be."""
        ...

    async def sleep(self) -> None:
        """Give the GPU back."""
        ...


class GpuTenants:
    """The two tenants of one GPU, of a profile with gpu = "phased"."""

    def __init__(self, profile: str, generator: Generator, scorer: Scorer) -> None:
        """Take what makes images; the agents' servers are added one by one.

        Raises:
            ConfigError: the generator cannot give the GPU back.
        """
        if not isinstance(generator, Movable):
            raise ConfigError(
                f'profiles.{profile}: gpu = "phased" needs a generator that gives the GPU '
                'back, as the profile\'s own does; choose gpu = "resident" for a pipeline of yours'
            )
        self._profile = profile
        self._generator = generator
        self._scorer = scorer if isinstance(scorer, Movable) else None
        self._servers: dict[str, Server] = {}

    def add(self, backend: Backend, settings: BackendSettings) -> None:
        """Have a backend answer while its server holds the GPU, if it needs one.

        Raises:
            ConfigError: a server that runs already may hold the GPU and cannot be stopped.
        """
        if settings.kind not in ("vllm", "openai") or (
            settings.kind == "openai" and settings.allow_network
        ):
            return  # in this process, or on other machines
        server: Server | None = getattr(backend, "server", None)
        if server is None:
            raise ConfigError(
                f'profiles.{self._profile}: gpu = "phased": backends.{backend.name} has a '
                "base_url, so its server cannot be stopped; give it a [server], or choose "
                'gpu = "resident"'
            )
        self._servers[backend.name] = server

    async def share(self) -> GpuSharing:
        """Free the GPU of what is left of an earlier run, and have it shared from now on."""
        await self._leave_images()
        return GpuSharing(
            Tenant("images", self._enter_images, self._leave_images),
            Tenant("agents", self._enter_agents, self._leave_agents),
            frozenset(self._servers),
        )

    async def _enter_agents(self) -> None:
        for server in self._servers.values():  # in turn: each measures what memory is free
            await server.wake()

    async def _leave_agents(self) -> None:
        sleeping = (server.sleep() for server in self._servers.values())
        for result in await asyncio.gather(*sleeping, return_exceptions=True):
            if isinstance(result, BaseException):  # all of them have been asked
                raise result

    async def _enter_images(self) -> None:
        await asyncio.to_thread(self._generator.enter_device)

    async def _leave_images(self) -> None:
        # The scorer's encoder first: it may be one of the generator's models.
        for part in (self._scorer, self._generator):
            if part is not None:
                await asyncio.to_thread(part.leave_device)

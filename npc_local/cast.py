"""From a resolved profile to an open `Cast`: backends checked before work and closed after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from npc_local.backends import open_backend
from npc_local.backends.base import Backend
from npc_local.backends.recorded import RecordedBackend
from npc_local.config import ResolvedProfile
from npc_local.diffusion.base import Generator
from npc_local.egress import permit
from npc_local.errors import ConfigError
from npc_local.loop import Cast
from npc_local.roles import Rules
from npc_local.salience.base import Scorer
from npc_local.salience.encoders import Source
from npc_local.settings import BackendSettings, EncoderSettings
from npc_local.turns import Side, TurnBackend, TurnGenerator, Turns, TurnScorer

if TYPE_CHECKING:
    from npc_local.backends.vllm_server import VllmServer


@asynccontextmanager
async def open_cast(
    profile: ResolvedProfile,
    *,
    generator: Generator | None = None,
    scorer: Scorer | None = None,
    logs: Path | None = None,
) -> AsyncIterator[Cast]:
    """Open everything that `profile` names, each backend once; `generator`, `scorer` replace its.

    Servers start here, one after the other; model directories are checked here, and the generator
    and the encoder load with their first use, so that nothing allocates while a server measures
    how much memory it may take. `logs` is the directory for what models answer, word for word
    (NAME.replies.jsonl), and for the logs of servers that are started (NAME.log).

    Raises:
        ConfigError: an entry points at something that cannot be used.
        BackendError: a backend cannot serve now.
        ModelFilesError: a model directory is missing, incomplete or damaged.
    """
    async with AsyncExitStack() as stack:
        if generator is None:
            from npc_local.diffusion.generator import DiffusersGenerator

            generator = DiffusersGenerator(profile.generator)
        if scorer is None:
            scorer = _open_scorer(profile, generator)
        phases = _Phases(profile, generator, scorer) if profile.gpu == "phased" else None
        seeing = {profile.verifier, profile.captioner}
        backends: dict[str, Backend] = {}
        for name, settings in profile.backends.items():
            log = None if logs is None else logs / f"{name}.log"
            agent = _opened(name, settings, log=log, sees=name in seeing, phases=phases)
            backends[name] = await stack.enter_async_context(agent)
        if phases is not None:
            await phases.begin()
        for backend in backends.values():
            await backend.check()
        if phases is not None:
            generator = TurnGenerator(generator, phases.turns, phases.images)
            scorer = TurnScorer(scorer, phases.turns, phases.images)
            stack.push_async_callback(phases.turns.close)
        yield Cast(
            generator=generator,
            verifier=backends[profile.verifier],
            captioner=backends[profile.captioner],
            proposer=backends[profile.proposer],
            scorer=scorer,
            rules=Rules(profile.strictness, profile.votes, profile.proposals),
        )


@asynccontextmanager
async def open_agent(
    name: str, settings: BackendSettings, *, sees: bool = True
) -> AsyncIterator[Backend]:
    """Open one backend for a single role, have it checked, and close it at the end.

    Args:
        name: the entry's name.
        settings: the entry.
        sees: whether it is asked about images.

    Raises:
        ConfigError: the entry points at something that cannot be used.
        BackendError: the backend cannot serve now.
        ModelFilesError: its model directory is missing, incomplete or damaged.
    """
    async with _opened(name, settings, log=None, sees=sees, phases=None) as backend:
        await backend.check()
        yield backend


@asynccontextmanager
async def _opened(
    name: str,
    settings: BackendSettings,
    *,
    log: Path | None,
    sees: bool,
    phases: _Phases | None,
) -> AsyncIterator[Backend]:
    """Open one backend without a check, and close it at the end."""
    async with AsyncExitStack() as stack:
        backend = open_backend(name, settings, log=log, sees=sees)
        if settings.kind == "openai" and settings.allow_network and settings.base_url:
            stack.enter_context(permit(settings.base_url))
        stack.push_async_callback(backend.aclose)
        if phases is not None:
            backend = phases.take_in(backend, settings)
        if log is not None and settings.kind in ("vllm", "openai"):
            backend = RecordedBackend(backend, log.with_suffix(".replies.jsonl"))
        yield backend


class _Phases:
    """The two sides of gpu = "phased": generator and encoder, and the servers of the agents."""

    def __init__(self, profile: ResolvedProfile, generator: Generator, scorer: Scorer) -> None:
        """Take the images' side; the agents' servers come in one by one.

        Raises:
            ConfigError: the generator cannot give the GPU back.
        """
        if not hasattr(generator, "leave_device"):
            raise ConfigError(
                f'profiles.{profile.name}: gpu = "phased" needs a generator that gives the GPU '
                'back, as the profile\'s own does; choose gpu = "resident" for a pipeline of yours'
            )
        self.turns = Turns()
        self._name = profile.name
        self._generator, self._scorer = generator, scorer
        self._servers: list[VllmServer] = []
        self.images = Side("images", self._enter_images, self._leave_images)
        self.agents = Side("agents", self._enter_agents, self._leave_agents)

    def take_in(self, backend: Backend, settings: BackendSettings) -> Backend:
        """Return a backend that answers in turns, if it needs the GPU.

        Raises:
            ConfigError: a server that runs already may hold the GPU and cannot be stopped.
        """
        if settings.kind not in ("vllm", "openai") or (
            settings.kind == "openai" and settings.allow_network
        ):
            return backend  # in this process, or on other machines
        server = getattr(backend, "server", None)
        if server is None:
            raise ConfigError(
                f'profiles.{self._name}: gpu = "phased": backends.{backend.name} has a base_url, '
                'so its server cannot be stopped; give it a [server], or choose gpu = "resident"'
            )
        self._servers.append(server)
        return TurnBackend(backend, self.turns, self.agents)

    async def begin(self) -> None:
        """Have the images' side leave what it may hold from an earlier run."""
        await self._leave_images()

    async def _enter_agents(self) -> None:
        for server in self._servers:  # one after the other: each measures what memory is free
            await server.wake()

    async def _leave_agents(self) -> None:
        results = await asyncio.gather(
            *(server.sleep() for server in self._servers), return_exceptions=True
        )
        for result in results:  # all of them have been asked
            if isinstance(result, BaseException):
                raise result

    async def _enter_images(self) -> None:
        await asyncio.to_thread(_tell, self._generator, "enter_device")

    async def _leave_images(self) -> None:
        # The encoder first: it may share the generator's models.
        for part in (self._scorer, self._generator):
            await asyncio.to_thread(_tell, part, "leave_device")


def _tell(part: object, what: str) -> None:
    """Have a part of ours do something; one of the user's may not know it."""
    act = getattr(part, what, None)
    if act is not None:
        act()


def _open_scorer(profile: ResolvedProfile, generator: Generator) -> Scorer:
    """Open the profile's encoder; one that the generator holds anyway is not loaded twice."""
    from npc_local.salience.scorer import SalienceScorer

    return SalienceScorer.open(profile.encoder, _held_by(generator, profile.encoder))


def _held_by(generator: Generator, encoder: EncoderSettings) -> Source | None:
    """Return the encoder as a part of the generator's pipeline, if it is one."""
    from npc_local.diffusion.generator import DiffusersGenerator
    from npc_local.diffusion.sampling import PipelineGenerator
    from npc_local.salience.encoders import TextEncoder, from_generator

    part, tokenizer = encoder.text_encoder, encoder.tokenizer
    if isinstance(generator, DiffusersGenerator) and encoder.is_held_by(generator.settings):
        bits = generator.settings.quantization
        return from_generator(
            encoder,
            lambda: (getattr(generator.pipe, tokenizer), getattr(generator.pipe, part)),
            bits.model_dump(mode="json") if bits is not None and part in bits.components else None,
        )
    if isinstance(generator, PipelineGenerator) and encoder.kind != "decoder":
        # A pipeline of the user's, loaded from the very directory that the encoder names. What has
        # been done to it since is not known: its word vectors are not kept on disk.
        pipe = generator.pipe
        home = getattr(pipe, "name_or_path", None)
        parts = [getattr(pipe, name, None) for name in (tokenizer, part)]
        if home and Path(home).resolve() == encoder.path.resolve() and all(parts):
            return Source(
                lambda: TextEncoder(parts[0], parts[1], encoder.memory_gib),
                generator.fingerprint,
                cached=False,
                owned=False,
            )
    return None

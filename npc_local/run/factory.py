"""From a resolved profile to open `Components`: backends checked before work, closed after it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path

from npc_local.agents import Rules
from npc_local.backends.base import Backend
from npc_local.backends.recording import RecordedBackend
from npc_local.core.config.load import ResolvedProfile
from npc_local.core.config.settings import BackendSettings
from npc_local.core.errors import ConfigError
from npc_local.core.offline.egress import permit
from npc_local.generator.base import Generator, HoldsEncoders
from npc_local.run.components import Components
from npc_local.run.gpu_tenants import GpuTenants
from npc_local.run.prompt_file import PromptReader
from npc_local.salience.base import Scorer

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_components(
    profile: ResolvedProfile,
    *,
    generator: Generator | None = None,
    scorer: Scorer | None = None,
    logs: Path | None = None,
    judge: str | None = None,
    on_status: Callable[[str], None] = log.warning,
    admit: Callable[[Sequence[PromptReader]], None] = lambda readers: None,
) -> AsyncIterator[Components]:
    """Open everything that `profile` names, each backend once; `generator`, `scorer` replace its.

    Servers start here, one after the other; model directories are checked here, and the generator
    and the encoder load with their first use, so that nothing allocates while a server measures
    how much memory it may take. `logs` is the directory for what models answer, word for word
    (NAME.replies.jsonl), and for the logs of servers that are started (NAME.log). `judge` is the
    one of the profile's backends that judges results, if any does. `on_status` is told of starts,
    restarts and retries. `admit` is given who reads the prompts, before any server starts, and may
    refuse them.

    Raises:
        ConfigError: an entry points at something that cannot be used.
        BackendError: a backend cannot serve now.
        ModelFilesError: a model directory is missing, incomplete or damaged.
    """
    async with AsyncExitStack() as stack:
        others: list[Generator] = []
        if generator is None:
            generator, *others = _generators(profile)
        shared = False
        if scorer is None:
            scorer, shared = _open_scorer(profile, generator)
        tenants = None
        if profile.gpu == "phased":
            tenants = GpuTenants(profile.name, generator, scorer)
        seeing = {profile.verifier, profile.captioner, judge}
        backends: dict[str, Backend] = {}
        for name, settings in profile.backends.items():
            opening = _opened(
                name,
                settings,
                log=None if logs is None else logs / f"{name}.log",
                sees=name in seeing,
                tenants=tenants,
                on_status=on_status,
            )
            backends[name] = await stack.enter_async_context(opening)
        judges = [] if judge is None else [backends[judge]]
        admit((backends[profile.verifier], backends[profile.proposer], scorer, *judges))
        sharing = None
        if tenants is not None:
            sharing = await tenants.share()
            stack.push_async_callback(sharing.close)
        for name, backend in backends.items():
            async with nullcontext() if sharing is None else sharing.lease_for(name):
                await backend.check()
        yield Components(
            generator=generator,
            verifier=backends[profile.verifier],
            captioner=backends[profile.captioner],
            proposer=backends[profile.proposer],
            scorer=scorer,
            rules=Rules(profile.strictness, profile.votes, profile.proposals),
            more_generators=tuple(others),
            shared_encoder=shared,
            gpu_sharing=sharing,
            judge=None if judge is None else backends[judge],
        )


@asynccontextmanager
async def open_agent(
    name: str,
    settings: BackendSettings,
    *,
    sees: bool = True,
    on_status: Callable[[str], None] = log.warning,
) -> AsyncIterator[Backend]:
    """Open one backend for a single role, have it checked, and close it at the end.

    Args:
        name: the entry's name.
        settings: the entry.
        sees: whether it is asked about images.
        on_status: is told of the start of its server, and of retries.

    Raises:
        ConfigError: the entry points at something that cannot be used.
        BackendError: the backend cannot serve now.
        ModelFilesError: its model directory is missing, incomplete or damaged.
    """
    async with _opened(
        name, settings, log=None, sees=sees, tenants=None, on_status=on_status
    ) as backend:
        await backend.check()
        yield backend


def open_backend(
    name: str,
    settings: BackendSettings,
    *,
    log: Path | None = None,
    sees: bool = True,
    on_status: Callable[[str], None] = log.warning,
) -> Backend:
    """Open `[backends.NAME]`, importing only what its kind needs.

    Args:
        name: the entry's name.
        settings: the entry.
        log: where a server that is started writes its log; left out, nowhere.
        sees: whether it is asked about images, so that its check sends one.
        on_status: is told of starts, restarts and retries.

    Raises:
        ConfigError: the entry points at something that cannot be used.
    """
    if settings.kind == "shapes":
        from npc_local.shapes.backend import ShapesBackend

        return ShapesBackend(name)
    if settings.kind == "scripted":
        from npc_local.backends.scripted import ScriptedBackend

        return ScriptedBackend.from_file(name, settings.replies)
    from npc_local.backends.chat import ChatBackend

    if settings.server is None:
        return ChatBackend(name, settings, sees=sees, on_status=on_status)
    from npc_local.backends.vllm.server import VllmServer

    server = partial(VllmServer, name, settings, log=log, on_status=on_status)
    return ChatBackend(name, settings, server=server, sees=sees, on_status=on_status)


@asynccontextmanager
async def _opened(
    name: str,
    settings: BackendSettings,
    *,
    log: Path | None,
    sees: bool,
    tenants: GpuTenants | None,
    on_status: Callable[[str], None],
) -> AsyncIterator[Backend]:
    """Open one backend without a check, and close it at the end."""
    async with AsyncExitStack() as stack:
        backend = open_backend(name, settings, log=log, sees=sees, on_status=on_status)
        if settings.kind == "openai" and settings.allow_network and settings.base_url:
            stack.enter_context(permit(settings.base_url))
        stack.push_async_callback(backend.aclose)
        if tenants is not None:
            tenants.add(backend, settings)
        if log is not None and settings.kind in ("vllm", "openai"):
            backend = RecordedBackend(backend, log.with_suffix(".replies.jsonl"))
        yield backend


def _generators(profile: ResolvedProfile) -> list[Generator]:
    """Open the profile's generator on each of its devices.

    Raises:
        ConfigError: they are to take turns with the agents, on one GPU.
        ModelFilesError: the model's directory is missing, incomplete or damaged.
    """
    from npc_local.generator.diffusers_generator import DiffusersGenerator

    settings = profile.generator
    if settings.more_devices and profile.gpu == "phased":
        raise ConfigError(
            f'profiles.{profile.name}: gpu = "phased" is for one GPU, and its generator has '
            'more_devices; leave them out, or choose gpu = "resident"'
        )
    devices = [settings.device, *settings.more_devices]
    return [
        DiffusersGenerator(settings.model_copy(update={"device": device})) for device in devices
    ]


def _open_scorer(profile: ResolvedProfile, generator: Generator) -> tuple[Scorer, bool]:
    """Open the profile's encoder; one that the generator holds anyway is not loaded twice.

    Returns:
        The scorer, and whether it computes on the generator's encoder.
    """
    from npc_local.salience.encoders.source import from_generator
    from npc_local.salience.scorer import SalienceScorer

    settings = profile.encoder
    held = generator.text_encoder(settings) if isinstance(generator, HoldsEncoders) else None
    if held is None:
        return SalienceScorer.open(settings), False
    source = from_generator(settings, held.pipe, held.quantization, held.fingerprint)
    return SalienceScorer.open(settings, source), True

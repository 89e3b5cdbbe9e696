"""Who needs what: from a profile of models.toml, a directory or a manifest to findings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from npc_local.cli.doctor.directories import inspect_encoder, inspect_pipeline, inspect_served_model
from npc_local.cli.doctor.estimate import (
    Gpu,
    encoder_bytes,
    find_gpu,
    generator_bytes,
    memory_finding,
    server_findings,
)
from npc_local.cli.doctor.findings import Finding, error, from_exception
from npc_local.cli.doctor.machine import (
    inspect_disk,
    inspect_extras,
    inspect_spacy,
    inspect_versions,
)
from npc_local.core.config.load import Config, ResolvedProfile
from npc_local.core.config.settings import (
    ChatBackendSettings,
    ScriptedBackendSettings,
    ServerSettings,
)
from npc_local.core.errors import ConfigError, ModelFilesError
from npc_local.core.files import paths
from npc_local.core.files.fault import read_json
from npc_local.core.files.manifest import Progress, check_manifest, read_manifest, unlisted


def examine_profile(config: Config, name: str | None) -> Iterator[Finding]:
    """Yield the findings about everything that a profile needs; each once.

    Raises:
        ConfigError: there is no such profile.
    """
    profile = config.profile(name)
    seen: set[Finding] = set()
    for finding in _all(profile, config.profiles[profile.name].gpu):
        if finding not in seen:
            seen.add(finding)
            yield finding


def examine_manifest(file: Path, progress: Progress | None = None) -> Iterator[Finding]:
    """Yield how the files below a manifest differ from it."""
    try:
        manifest = read_manifest(file)
    except ModelFilesError as caught:
        yield from_exception(caught, file)
        return
    faults = list(check_manifest(manifest, progress))
    for fault in faults:
        yield error(
            fault.what, fault.file, "copy it again, or run scripts/download_models.sh again"
        )
    if strays := unlisted(manifest):
        yield Finding(
            "note", f"{len(strays)} files that it does not list, the first: {strays[0]}", str(file)
        )
    if not faults:
        size = sum(entry.size for entry in manifest.entries)
        yield Finding(
            "ok", f"all {len(manifest.entries)} files are as listed, {size / 1e9:.1f} GB", str(file)
        )


def _all(profile: ResolvedProfile, gpu: str) -> Iterator[Finding]:
    """Yield everything about a profile, the models first."""
    yield from inspect_versions()
    yield from inspect_pipeline(profile.generator)
    yield from inspect_extras(profile.generator)
    yield from inspect_encoder(profile.encoder)
    seers = {profile.verifier, profile.captioner}
    for name, backend in profile.backends.items():
        if isinstance(backend, ScriptedBackendSettings):
            yield _scripted(backend.replies)
        elif isinstance(backend, ChatBackendSettings):
            from npc_local.cli.doctor.servers import inspect_server

            if backend.server is not None:
                yield from inspect_served_model(
                    backend.server.model,
                    images=name in seers,
                    own_template=any(
                        argument.startswith(("--chat-template", "--chat_template"))
                        for argument in backend.server.arguments
                    ),
                )
            yield from inspect_server(name, backend, sees=name in seers)
    yield from _memory(profile, phased=gpu == "phased")
    yield inspect_disk(paths.working_directory())
    yield inspect_spacy(profile.encoder)


def _scripted(replies: Path) -> Finding:
    """Return whether the replies of a scripted backend can be read."""
    try:
        read_json(replies)
    except ModelFilesError as caught:
        finding = from_exception(caught, replies)
        return error(finding.what, replies, "name the JSON file of the replies", ConfigError)
    return Finding("ok", "replies of the scripted backend", str(replies))


def _memory(profile: ResolvedProfile, *, phased: bool) -> Iterator[Finding]:
    """Yield whether a profile fits into the memory of its GPU, where it uses one."""
    servers = {
        name: backend.server
        for name, backend in profile.backends.items()
        if isinstance(backend, ChatBackendSettings) and backend.server is not None
    }
    device, encoder = profile.generator.device, profile.encoder.device
    wanted = [place for place in (device, encoder) if place == "auto" or place.startswith("cuda")]
    if not wanted and not servers:
        return
    gpu = find_gpu(wanted[0] if wanted else "cuda")
    if gpu is None:
        yield _no_gpu(forced=any(place.startswith("cuda") for place in wanted), wanted=bool(wanted))
        return
    for name, server in servers.items():
        yield from server_findings(name, server, gpu)
    try:
        images = generator_bytes(profile.generator) if device in wanted else 0
        if encoder in wanted:
            images += encoder_bytes(profile.encoder, profile.generator)
    except ModelFilesError:
        return  # said by others
    yield _fits(images, servers, gpu, phased=phased)


def _fits(images: int, servers: dict[str, ServerSettings], gpu: Gpu, *, phased: bool) -> Finding:
    """Compare the generator's bytes and the servers' shares, together or by turns, with a GPU."""
    shares = sum(int(server.gpu_memory_utilization * gpu.total) for server in servers.values())
    if not servers:
        return memory_finding(images, gpu, "the generator")
    if phased:
        larger = "the generator" if images >= shares else "a server"
        return memory_finding(max(images, shares), gpu, f"{larger}, the larger of the two in turn,")
    return memory_finding(images + shares, gpu, "the generator together with the servers")


def _no_gpu(*, forced: bool, wanted: bool) -> Finding:
    """Return what it means that nvidia-smi shows no GPU."""
    if forced:
        return Finding(
            "warning",
            "nvidia-smi shows no such GPU, and the settings name one",
            do='check the driver, or set device = "auto"',
        )
    if sys.platform == "darwin" and wanted:
        return Finding("note", "no NVIDIA GPU: torch will use Apple's (mps) if it can")
    return Finding(
        "note", "no NVIDIA GPU seen (nvidia-smi): models run on the CPU, real ones very slowly"
    )

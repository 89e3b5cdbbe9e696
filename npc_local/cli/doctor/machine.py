"""The machine: versions of what is installed, packages that settings need, disk space.

Versions are read from the packages' metadata; nothing is imported.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from npc_local.cli.doctor.findings import Finding, error, from_exception
from npc_local.core.config.settings import EncoderSettings, GeneratorSettings
from npc_local.core.errors import ConfigError, NpcError, StorageError
from npc_local.core.files import paths
from npc_local.core.versions import __version__
from npc_local.salience.rules import spacy_model

_PROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"
_LOW_DISK, _NO_DISK = 1 << 30, 50 << 20  # bytes free: a warning below, an error
_SHOWN = ("torch", "diffusers", "transformers", "pydantic")
_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)(?:>=(?P<minimum>[\d.]+))?(?:\s*;.*extra == ['\"](?P<extra>[\w-]+)['\"])?"
)


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package of pyproject.toml: its lowest version, and the extra that it belongs to."""

    name: str
    minimum: str
    extra: str


def requirements() -> list[Requirement]:
    """Return the packages that npc-local needs, from its metadata or the checkout's pyproject."""
    try:
        lines = importlib.metadata.requires("npc-local") or []
    except importlib.metadata.PackageNotFoundError:
        if not paths.is_file(_PROJECT, ConfigError):
            return []
        project = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]
        lines = list(project["dependencies"])
        for extra, names in project["optional-dependencies"].items():
            lines += [f'{name}; extra == "{extra}"' for name in names]
    found = [match for line in lines if (match := _REQUIREMENT.match(line))]
    return [
        Requirement(match["name"], match["minimum"] or "0", match["extra"] or "") for match in found
    ]


def inspect_versions() -> Iterator[Finding]:
    """Yield what is missing or too old for npc-local itself, or that all is well."""
    needed = [one for one in requirements() if not one.extra]
    wrong = [found for one in needed if (found := _too_old(one))]
    yield from wrong
    if not wrong:
        names = ", ".join(f"{name} {_version(name) or 'absent'}" for name in _SHOWN)
        what = f"Python {platform.python_version()}, npc-local {__version__}, {names}"
        if needed:
            yield Finding("ok", what)
        else:
            yield Finding("note", f"{what}; which versions are needed is not known here")


def inspect_extras(settings: GeneratorSettings) -> Iterator[Finding]:
    """Yield the optional packages that a generator's settings need and that are not there."""
    wanted: dict[str, tuple[str, str]] = {}  # package: extra, setting
    if settings.loras:
        wanted["peft"] = ("lora", "loras")
    if settings.quantization is not None:
        kind = settings.quantization.kind
        wanted[kind.split("_")[0]] = ("quantization", f"quantization: kind = {kind!r}")
    if settings.gguf is not None:
        wanted["gguf"] = ("quantization", "gguf")
    known = {one.name: one for one in requirements() if one.extra in {"lora", "quantization"}}
    for package, (extra, setting) in wanted.items():
        requirement = known.get(package, Requirement(package, "0", extra))
        if found := _too_old(requirement, f"{setting} needs it"):
            yield found
        else:
            yield Finding("ok", f"{package} {_version(package)}, which {setting} needs")


def inspect_spacy(settings: EncoderSettings) -> Finding:
    """Return whether the parser that finds salient tokens is there, if they ask for it."""
    if settings.tokens in ("quantity", "released"):
        return Finding("ok", f'no parser is needed: tokens = "{settings.tokens}"')
    try:
        model = spacy_model.directory(settings.spacy_model)
    except NpcError as caught:
        if settings.tokens == "auto":  # prompts that only count things do without
            return Finding("warning", str(caught))
        return from_exception(caught, "spaCy")
    return Finding("ok", "spaCy's model, for salient tokens", str(model))


def inspect_disk(where: Path) -> Finding:
    """Return whether runs can be written below a directory."""
    try:
        free = shutil.disk_usage(where).free
    except OSError as caught:
        return error(f"cannot be looked at ({caught.strerror})", where, kind=StorageError)
    if not os.access(where, os.W_OK):
        return Finding(
            "warning",
            "not writable, and runs go to ./npc-local-runs",
            str(where),
            "give --out DIR, or start from another directory",
        )
    what = f"{free / (1 << 30):.1f} GiB of disk are free for runs"
    do = "free disk space, or give --out DIR on another disk"
    if free < _NO_DISK:
        return error(what, where, do, StorageError)
    return Finding(
        "warning" if free < _LOW_DISK else "ok", what, str(where), do * (free < _LOW_DISK)
    )


def _too_old(wanted: Requirement, why: str = "") -> Finding | None:
    """Return an error if a package is absent or older than it must be."""
    found = _version(wanted.name)
    if found and _order(found) >= _order(wanted.minimum):
        return None
    install = f"npc-local[{wanted.extra}]" if wanted.extra else f"{wanted.name}>={wanted.minimum}"
    return error(
        f"{wanted.name} is {f'version {found}' if found else 'not installed'}; {wanted.minimum} or "
        f"newer is needed{f': {why}' if why else ''}",
        sys.prefix,
        f"pip install '{install}'",
        ConfigError,
    )


def _version(name: str) -> str:
    """Return the version of an installed package, or an empty text."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _order(version: str) -> tuple[int, ...]:
    """Return the numbers that a version starts with, without trailing zeros."""
    start = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in start[0].split(".")] if start else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)

"""The machine: versions of what is installed, packages that settings need, disk space.

Versions are read from the packages' metadata; nothing is imported.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from npc_local.cli.doctor.findings import Finding, error, from_exception
from npc_local.core.config.settings import EncoderSettings, GeneratorSettings
from npc_local.core.errors import ConfigError, NpcError, StorageError
from npc_local.core.files import paths
from npc_local.core.versions import __version__
from npc_local.salience.rules import spacy_model

_PROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"
_LOW_DISK, _NO_DISK = 1 << 30, 50 << 20  # bytes free: a warning below, an error
_EXTRAS = ("lora", "quantization")  # that settings of a generator ask for
_SHOWN = ("torch", "diffusers", "transformers", "pydantic")


def requirements() -> list[tuple[Requirement, str]]:
    """Return the packages that npc-local needs, each with the extra it is for, or "".

    They are its metadata's, or where it is not installed the checkout's pyproject.
    """
    try:
        lines = importlib.metadata.requires("npc-local") or []
    except importlib.metadata.PackageNotFoundError:
        if not paths.is_file(_PROJECT, ConfigError):
            return []
        project = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]
        lines = list(project["dependencies"])
        for extra, names in project["optional-dependencies"].items():
            lines += [f'{name}; extra == "{extra}"' for name in names]
    wanted = map(Requirement, lines)
    return [(requirement, extra) for requirement in wanted for extra in _extras(requirement)]


def _extras(requirement: Requirement) -> Iterator[str]:
    """Yield for which extras a requirement is, or "" if it is for all; none: for other machines."""
    marker = requirement.marker
    if marker is None or marker.evaluate({"extra": ""}):
        yield ""
    else:
        yield from (extra for extra in _EXTRAS if marker.evaluate({"extra": extra}))


def inspect_versions() -> Iterator[Finding]:
    """Yield what is missing or too old for npc-local itself, or that all is well."""
    needed = [requirement for requirement, extra in requirements() if not extra]
    wrong = [finding for requirement in needed if (finding := _unfit(requirement))]
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
    known = {requirement.name: requirement for requirement, extra in requirements() if extra}
    for package, (extra, setting) in wanted.items():
        requirement = known.get(package, Requirement(package))
        if finding := _unfit(requirement, extra, f"{setting} needs it"):
            yield finding
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


def _unfit(wanted: Requirement, extra: str = "", why: str = "") -> Finding | None:
    """Return an error if a package is absent, or of a version that will not do."""
    there = _version(wanted.name)
    try:
        if there and wanted.specifier.contains(Version(there), prereleases=True):
            return None
    except InvalidVersion:  # of somebody's own making: taken as it is
        return None
    return error(
        f"{wanted.name} is {f'version {there}' if there else 'not installed'}; "
        f"{wanted.specifier or 'any version'} is needed{f': {why}' if why else ''}",
        sys.prefix,
        f"pip install '{f'npc-local[{extra}]' if extra else f'{wanted.name}{wanted.specifier}'}'",
        ConfigError,
    )


def _version(name: str) -> str:
    """Return the version of an installed package, or an empty text."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""

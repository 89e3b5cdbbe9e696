"""`npc-local config` and `npc-local profiles`: which models.toml is used, and what it offers.

Whether a profile's models are whole is left to `npc-local doctor`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from npc_local.cli import options

if TYPE_CHECKING:
    from npc_local.core.config.load import Config, ResolvedProfile

_WHICH = {
    "named": "named by --config",
    "here": "the one in this directory",
    "shipped": "the one that comes along",
}


@click.command(
    epilog="\b\nExamples:\n  npc-local config\n  npc-local config --write models.toml\n"
    "  npc-local config --json | jq -r .file"
)
@options.config
@options.path(
    "--write", "Write a copy of it there, to be changed; never over another file.", metavar="FILE"
)
@options.as_json()
def config(config: Path | None, write: Path | None, as_json: bool) -> None:
    """Say which models.toml is used, and where its paths start; write a copy of it."""
    from npc_local.core.config.load import find_config, load_config

    file = find_config(config)
    settings = load_config(config)
    if write is not None:
        _copy(file.path, write)
    report = {
        "file": str(file.path),
        "which": file.which,
        "paths_start_at": str(file.base),
        "default_profile": settings.default_profile,
        "profiles": list(settings.profiles),
        "written": None if write is None else str(write),
    }
    if as_json:
        click.echo(json.dumps(report))
        return
    from npc_local.core.terminal import plain

    rows = {
        "file": f"{file.path} ({_WHICH[file.which]})",
        "paths in it start at": str(file.base),
        "profiles": ", ".join(settings.profiles),
        "default profile": settings.default_profile,
    }
    if write is not None:
        rows["copy"] = str(write)
    for name, value in rows.items():
        click.echo(f"{name:<22}{plain(value)}")


@click.command(
    epilog="\b\nExamples:\n  npc-local profiles\n  npc-local profiles --json | jq '.[].name'"
)
@options.config
@options.as_json("Print one JSON array.")
def profiles(config: Path | None, as_json: bool) -> None:
    """List the profiles of models.toml: who does what, and which model directories are missing."""
    from npc_local.core.config.load import load_config

    settings = load_config(config)
    rows = [_row(settings, name) for name in settings.profiles]
    if as_json:
        click.echo(json.dumps(rows))
    else:
        _show(rows)


def _copy(source: Path, target: Path) -> None:
    """Copy a file to where nothing is yet.

    Raises:
        StorageError: something is there, or it cannot be written.
    """
    from npc_local.core.errors import ConfigError, StorageError
    from npc_local.core.files import paths
    from npc_local.core.files.atomic import write_durably

    if paths.exists(target, StorageError) or paths.is_symlink(target, StorageError):
        raise StorageError(f"{target}: there is something already; name another file")
    write_durably(target, paths.read(source, ConfigError))


def _row(settings: Config, name: str) -> dict[str, Any]:
    """Return one profile as plain data."""
    profile = settings.profile(name)
    return {
        "name": name,
        "default": name == settings.default_profile,
        "description": profile.description,
        "generator": settings.profiles[name].generator,
        "agents": list(profile.backends),
        "encoder": settings.profiles[name].encoder,
        "candidates": profile.candidates,
        "missing": _missing(profile),
    }


def _missing(profile: ResolvedProfile) -> list[str]:
    """Return the model directories of a profile that are not there."""
    from npc_local.core.errors import ModelFilesError
    from npc_local.core.files import paths

    servers = [getattr(backend, "server", None) for backend in profile.backends.values()]
    places = [profile.generator.path, profile.encoder.path]
    places += [server.model for server in servers if server is not None]
    return [str(path) for path in dict.fromkeys(places) if not paths.is_dir(path, ModelFilesError)]


def _show(rows: list[dict[str, Any]]) -> None:
    """Print the profiles, one below the other: a table would not fit a narrow terminal."""
    from npc_local.core.terminal import plain

    for row in rows:
        default = " (default)" if row["default"] else ""
        click.echo(f"{plain(row['name'])}{default}")
        if row["description"]:
            click.echo(f"  {plain(row['description'])}")
        click.echo(
            f"  generator {row['generator']}, agents {', '.join(row['agents'])}, "
            f"encoder {row['encoder']}, {row['candidates']} candidates"
        )
        for path in row["missing"]:
            click.echo(f"  missing: {plain(path)}")

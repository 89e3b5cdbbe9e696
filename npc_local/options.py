"""Command-line options that several commands share. Imports click only."""

from __future__ import annotations

from pathlib import Path

import click

profile = click.option(
    "--profile", metavar="NAME", help="A profile of models.toml.  [default: its default_profile]"
)
config = click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The configuration.  [default: ./models.toml, else the one that comes along]",
)
overrides = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a key of models.toml for this run; may be repeated.",
)

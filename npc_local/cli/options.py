"""Command-line options that several commands share. Imports click only."""

from __future__ import annotations

from pathlib import Path

import click

ARGUMENTS = "npc_local.cli.arguments"
"""Where a context's `meta` has the arguments that the command line was given."""

encoder = click.option(
    "--encoder",
    metavar="NAME_OR_DIR",
    help="An encoder of models.toml, or a directory.  [default: the profile's]",
)
formula = click.option(
    "--formula",
    type=click.Choice(["paper", "released"]),
    help="The score as the paper or as its released code has it.  [default: the encoder's]",
)
tokens = click.option(
    "--tokens",
    type=click.Choice(["auto", "released", "quantity", "parser"]),
    help="Which words are salient.  [default: the encoder's; for a directory: auto]",
)
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

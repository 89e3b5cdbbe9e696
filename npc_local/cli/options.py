"""Command-line options that several commands share, and helpers to write others.

Imports click only. What a number means to a profile is in `adjusted`; everything else about a value
is left to whoever uses it.
"""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from npc_local.core.errors import ConfigError
from npc_local.core.files import paths

if TYPE_CHECKING:
    from npc_local.core.config.load import ResolvedProfile

    PathType = click.ParamType[Path]
else:
    PathType = click.ParamType

P = ParamSpec("P")
R = TypeVar("R")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

ARGUMENTS = "npc_local.cli.arguments"
"""Where a context's `meta` has the arguments that the command line was given."""
PRINT = "npc_local.cli.print"
"""Where a context's `meta` has what prints a line of results, if not `click.echo`."""
DRAWN_SEED = "NPC_LOCAL_DRAWN_SEED"
"""The environment variable by which a command's child has the seed that its parent has drawn."""

FORMATS = ("text", "markdown", "csv", "json")
MAX_SEED = 2**63 - 1


class LocalPath(PathType):
    """A path; `~` is the home directory also where no shell has said so, as in `--out=~/runs`."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        if not str(value):
            self.fail("empty; name a file or a directory", param, ctx)
        try:
            return paths.expanded(Path(value))
        except ConfigError:  # no such user: a file may be called so
            return Path(value)


class Seed(click.IntRange):
    """A seed, or the word random for one that is drawn here."""

    name = "integer"

    def __init__(self) -> None:
        """Allow what torch takes."""
        super().__init__(0, MAX_SEED)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the seed."""
        if value != "random":
            return super().convert(value, param, ctx)
        drawn = int(os.environ.get(DRAWN_SEED) or secrets.randbelow(2**32))
        if DRAWN_SEED not in os.environ:
            click.echo(f"seed {drawn}, drawn at random", err=True)
        return drawn


PATH = LocalPath()
NUMBERS = ("steps", "negative_steps", "width", "height", "candidates")
"""What `sampling` gives a command, as `adjusted` takes it."""


def local(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return what is a name or a path with `~` read as in `PATH`; a callback of options."""
    plain = value is None or (value and not value.startswith("~"))
    return value if plain else str(PATH.convert(value, param, ctx))


def count(
    name: str,
    text: str,
    *,
    default: int | None = None,
    least: int = 1,
    most: int | None = None,
    metavar: str = "N",
    also: str | None = None,
) -> Decorator:
    """Return an option that takes a whole number.

    Args:
        name: as typed, like `--steps`.
        text: its help; where no default is given, it says what is done instead.
        default: the number where none is given.
        least: the least one allowed.
        most: the largest one allowed; None: any.
        metavar: what it is called in the help.
        also: another name for the same.
    """
    return click.option(
        *([name] if also is None else [name, also]),
        metavar=metavar,
        type=click.IntRange(least, most),
        default=default,
        show_default=default is not None,
        help=text,
    )


def choice(name: str, values: Sequence[str], text: str) -> Decorator:
    """Return an option that takes one of some words, the first of them by default."""
    kind = click.Choice(values)
    return click.option(name, type=kind, default=values[0], show_default=True, help=text)


def path(
    name: str, text: str, *, metavar: str, parameter: str | None = None, required: bool = False
) -> Decorator:
    """Return an option that takes a path; `parameter` is what the command calls it."""
    names = [name] if parameter is None else [name, parameter]
    return click.option(*names, metavar=metavar, type=PATH, required=required, help=text)


def as_json(text: str = "Print one JSON object.") -> Decorator:
    """Return the option `--json`, which the command gets as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def form(command: Callable[P, R]) -> Callable[P, R]:
    """Give a command that prints tables `--format` and `--json`; it gets one of `FORMATS`."""

    @functools.wraps(command)
    def merged(*args: Any, as_json: bool, **values: Any) -> Any:
        return command(*args, **values | ({"form": "json"} if as_json else {}))

    shown: Any = click.option(
        "--format",
        "form",
        metavar="[text|markdown|csv]",
        type=click.Choice(FORMATS),
        default="text",
        show_default=True,
        help="Of the tables that are printed.",
    )(as_json("Print one JSON object in place of tables.")(merged))
    return shown  # type: ignore[no-any-return]


def sampling(command: Callable[P, R]) -> Callable[P, R]:
    """Give a command the numbers of a profile that people change most; `adjusted` applies them."""
    for option in reversed(
        (
            count("--steps", "Denoising steps of an image.  [default: the generator's]"),
            count(
                "--negative-steps",
                "First denoising steps that the negative acts in.  [default: the generator's]",
            ),
            count(
                "--width", "Of an image.  [default: the generator's]", least=16, metavar="PIXELS"
            ),
            count(
                "--height", "Of an image.  [default: the generator's]", least=16, metavar="PIXELS"
            ),
            count(
                "--candidates",
                "Negative prompts to try at most.  [default: the profile's]",
                metavar="K",
            ),
        )
    ):
        command = option(command)
    return command


def adjusted(
    profile: ResolvedProfile,
    *,
    steps: int | None = None,
    negative_steps: int | None = None,
    width: int | None = None,
    height: int | None = None,
    candidates: int | None = None,
) -> ResolvedProfile:
    """Return the profile with the numbers of `sampling` that were given.

    Raises:
        ConfigError: there are fewer denoising steps than the negative is to act in.
    """
    numbers = {"steps": steps, "negative_steps": negative_steps, "width": width, "height": height}
    given = {name: number for name, number in numbers.items() if number is not None}
    generator = profile.generator.model_copy(update=given)
    if generator.negative_steps > generator.steps:
        whose = f"of the generator of profile {profile.name!r}"
        if negative_steps is None:
            raise ConfigError(
                f"--steps: found {steps}; must be at least {generator.negative_steps}, the "
                f"negative_steps {whose}; give a smaller --negative-steps too"
            )
        raise ConfigError(
            f"--negative-steps: found {negative_steps}; must be at most {generator.steps}, the "
            f"steps {whose if steps is None else 'asked for'}"
        )
    return replace(profile, generator=generator, candidates=candidates or profile.candidates)


encoder = click.option(
    "--encoder",
    metavar="NAME_OR_DIR",
    callback=local,
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
config = path(
    "--config",
    "The configuration.  [default: ./models.toml, else the one that comes along]",
    metavar="FILE",
)
overrides = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a key of models.toml for this run; may be repeated.",
)
seed = click.option(
    "--seed",
    metavar="N|random",
    type=Seed(),
    default=0,
    show_default=True,
    help="Fixes the noise of every image; random draws one and says which.",
)

"""Options that several benchmarks have, in one form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def count(name: str, default: int, text: str, least: int = 1) -> Callable[[Command], Command]:
    """Return an option that takes a whole number of at least `least`."""
    return click.option(
        name,
        metavar="N",
        type=click.IntRange(min=least),
        default=default,
        show_default=True,
        help=text,
    )


def choice(name: str, names: list[str], default: str, text: str) -> Callable[[Command], Command]:
    """Return an option that takes one of several names; its argument is called as it is."""
    return click.option(
        name, type=click.Choice(names), default=default, show_default=True, help=text
    )


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")

"""What several commands tell about the prompts that they were given."""

from __future__ import annotations

from collections.abc import Iterable

import click


def tell_markup(prompts: Iterable[str]) -> None:
    """Say once, on standard error, which parts of the prompts are markup of other tools, if any."""
    from npc_local.core.prompt_markup import note
    from npc_local.core.terminal import plain

    if found := note(prompts):
        click.echo(f"note: {plain(found)}", err=True)

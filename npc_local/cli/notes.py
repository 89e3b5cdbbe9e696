"""What several commands tell about the prompts that they were given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click


def tell_markup(prompts: Iterable[str]) -> None:
    """Say once, on standard error, which parts of the prompts are markup of other tools, if any."""
    from npc_local.core.prompt_markup import note
    from npc_local.core.terminal import plain

    if found := note(prompts):
        click.echo(f"note: {plain(found)}", err=True)


def tell_unquoted(prompts: Sequence[str]) -> None:
    """Say that a prompt of several words is to be quoted where these look like one that was not."""
    from npc_local.core.terminal import plain

    if len(prompts) > 1 and all(len(prompt.split()) == 1 for prompt in prompts):
        click.echo(
            f"warning: {len(prompts)} prompts of one word each; to ask for one image, quote them: "
            f'npc-local run "{plain(" ".join(prompts))}"',
            err=True,
        )

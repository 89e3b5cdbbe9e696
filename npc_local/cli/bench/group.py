"""`npc-local bench`: its commands, which have a module each. Imports click only at once."""

from __future__ import annotations

from typing import NoReturn

import click

from npc_local.cli.bench.agreement import agreement
from npc_local.cli.bench.gate import gate
from npc_local.cli.bench.suite import suite_command


@click.group()
def bench() -> None:
    """Measure how often images match their prompts, and what a negative prompt costs."""


def _moved(name: str) -> click.Command:
    """Return a hidden command for one that people may know, which says where it is now."""

    @click.pass_context
    def elsewhere(ctx: click.Context) -> NoReturn:
        click.echo(
            f"error: `npc-local bench {name}` is now `python -m benchmarks {name}`, in a checkout "
            "of the project",
            err=True,
        )
        ctx.exit(2)

    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    return click.Command(name, callback=elsewhere, hidden=True, context_settings=settings)


bench.add_command(agreement)
bench.add_command(gate)
for name in ("geneval++", "imagine", "shapes"):
    bench.add_command(suite_command(name))
for name in ("salience", "throughput", "tokens"):
    bench.add_command(_moved(name))

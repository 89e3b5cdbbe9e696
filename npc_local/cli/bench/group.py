"""`npc-local bench`: its commands, which have a module each. Imports click only at once."""

from __future__ import annotations

import click

from npc_local.cli.bench.agreement import agreement
from npc_local.cli.bench.gate import gate
from npc_local.cli.bench.suite import suite_command


@click.group()
def bench() -> None:
    """Measure how often images match their prompts, and what a negative prompt costs."""


bench.add_command(agreement)
bench.add_command(gate)
for name in ("geneval++", "imagine", "shapes"):
    bench.add_command(suite_command(name))

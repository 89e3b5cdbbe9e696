"""`npc-local bench`: its commands, which have a module each. Imports click only at once."""

from __future__ import annotations

import click

from npc_local.bench.agreement_command import agreement
from npc_local.bench.gate_command import gate
from npc_local.bench.salience_command import salience
from npc_local.bench.suite_command import suite_command
from npc_local.bench.throughput import throughput
from npc_local.bench.token_command import tokens


@click.group()
def bench() -> None:
    """Measure how often images match their prompts, and what a negative prompt costs."""


bench.add_command(agreement)
bench.add_command(gate)
bench.add_command(salience)
bench.add_command(throughput)
bench.add_command(tokens)
for name in ("geneval++", "imagine", "shapes"):
    bench.add_command(suite_command(name))

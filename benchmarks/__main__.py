"""`python -m benchmarks NAME`, from a checkout: measurements beyond `npc-local bench`."""

from __future__ import annotations

import click

from benchmarks.salience.command import salience
from benchmarks.throughput.command import throughput
from benchmarks.tokens.command import tokens


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure speed, and the rules for salient tokens."""


for command in (salience, throughput, tokens):
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name="python -m benchmarks")

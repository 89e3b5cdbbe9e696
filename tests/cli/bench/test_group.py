"""The commands of `npc-local bench`, and those that have moved out of it."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main as benchmarks
from npc_local.cli.bench.group import bench


@pytest.mark.parametrize("name", ["salience", "throughput", "tokens"])
@pytest.mark.parametrize("options", [[], ["--set", "dev", "--json"], ["--help"]])
def test_a_command_that_has_moved_says_where_it_is(name, options):
    result = CliRunner().invoke(bench, [name, *options])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"error: `npc-local bench {name}` is now `python -m benchmarks {name}`, in a checkout of "
        "the project"
    ]
    assert name in benchmarks.commands


def test_help_names_only_what_is_here():
    shown = CliRunner().invoke(bench, ["--help"]).stdout
    listed = [line.split()[0] for line in shown.partition("Commands:")[2].splitlines() if line]
    assert listed == ["agreement", "gate", "geneval++", "imagine", "shapes"]

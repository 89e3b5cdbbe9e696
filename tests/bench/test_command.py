"""`npc-local bench shapes`: refusals before work, tables and JSON, going on after a stop."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest
from click.testing import CliRunner

from npc_local import cast as casting
from npc_local import cli
from npc_local.errors import GeneratorError
from npc_local.loop import Cast
from npc_local.records import Render
from npc_local.shapes.backend import ShapesBackend
from npc_local.shapes.draw import draw
from npc_local.shapes.scene import sample_scene
from npc_local.shapes.wording import read
from tests.fakes import FakeScorer


class Draughtsman:
    """Draws what the prompt says, but under even seeds leaves the last group out."""

    def __init__(self, limit=None):
        self.made = 0
        self.limit = limit

    def generate(self, shots):
        import random

        renders = []
        for shot in shots:
            if self.made == self.limit:
                raise GeneratorError("power cut")
            groups = read(shot.prompt).groups
            right = shot.seed % 2 or shot.negative
            scene = sample_scene(groups if right else groups[:-1], random.Random(shot.seed))
            renders.append(Render(draw(scene), forwards=1, seconds=0.0))
            self.made += 1
        return renders

    def fingerprint(self):
        return "draughtsman"


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Run the command in an empty directory with a generator of ours."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, limit=None):
        generator = Draughtsman(limit)

        @asynccontextmanager
        async def open_cast(profile):
            agents = ShapesBackend("shapes")
            yield Cast(generator, agents, agents, agents, FakeScorer())

        monkeypatch.setattr(casting, "open_cast", open_cast)
        result = CliRunner().invoke(cli.main, ["bench", "shapes", "--per-tag", "1", *arguments])
        return result, generator

    return run


def test_tables_and_files(bench, tmp_path):
    result, _ = bench("--out", "out")
    assert result.exit_code == 0, result.output
    assert "| **overall**" in result.stdout
    assert (tmp_path / "out" / "summary.md").read_text() in result.stdout


def test_json_is_one_object(bench):
    result, _ = bench("--json", "--arms", "npc,reseed")
    found = json.loads(result.stdout)
    assert set(found["accuracy"]) == {"base", "npc", "reseed"}
    assert found["prompts"] == 7
    assert found["accuracy"]["npc"]["overall"] > found["accuracy"]["base"]["overall"]


def test_an_error_keeps_what_is_done_and_the_same_command_goes_on(bench, tmp_path):
    result, _ = bench("--out", "out", limit=4)
    assert result.exit_code == GeneratorError.exit_code
    assert "power cut" in result.stderr
    done = len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) - 1
    assert 0 < done < 7
    result, again = bench("--out", "out")
    assert result.exit_code == 0, result.output
    _, whole = bench("--out", "whole")
    assert again.made < whole.made
    first, second = ((tmp_path / name / "results.jsonl").read_text() for name in ("out", "whole"))
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "base,magic"], "magic"),
        (["--seeds", "0,x"], "--seeds"),
        (["--seeds", "-1"], "--seeds"),
        (["--per-tag", "0"], "--per-tag"),
    ],
)
def test_bad_options_are_refused(bench, arguments, message):
    result, generator = bench(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert generator.made == 0

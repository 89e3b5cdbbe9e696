"""`npc-local bench shapes`: refusals before work, tables and JSON, going on after a stop."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest
from click.testing import CliRunner

from npc_local import cast as casting
from npc_local import cli
from npc_local.errors import BackendError, GeneratorError, ModelFilesError, StorageError
from npc_local.loop import Cast
from npc_local.records import Render
from npc_local.shapes.backend import ShapesBackend
from npc_local.shapes.draw import draw
from npc_local.shapes.scene import sample_scene
from npc_local.shapes.wording import read
from tests.fakes import FakeScorer


class Draughtsman:
    """Draws what the prompt says, but under even seeds leaves the last group out."""

    def __init__(self, limit=None, name="draughtsman"):
        self.made = 0
        self.limit = limit
        self.name = name

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
        return self.name


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Run the command in an empty directory with a generator of ours."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, limit=None, name="draughtsman", scorer=None, agents=None):
        generator = Draughtsman(limit, name)
        verifier = agents or ShapesBackend("shapes")

        @asynccontextmanager
        async def open_cast(profile, **_):
            others = ShapesBackend("shapes")
            yield Cast(generator, verifier, others, others, scorer or FakeScorer())

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


class OtherScorer(FakeScorer):
    def fingerprint(self):
        return "other weights"


class OtherAgents(ShapesBackend):
    def fingerprint(self):
        return "other agents"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"name": "engraver"}, ("draughtsman", "engraver")),
        ({"scorer": OtherScorer()}, ("fake", "other weights")),
        ({"agents": OtherAgents("shapes")}, ("shapes-", "other agents")),
    ],
)
def test_another_model_s_results_are_not_gone_on_with(bench, tmp_path, changed, words):
    assert bench("--out", "out", limit=4)[0].exit_code == GeneratorError.exit_code
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    result, generator = bench("--out", "out", **changed)
    assert result.exit_code == 2
    assert "other settings (fingerprints: " in result.stderr
    assert all(word in result.stderr for word in words)
    assert generator.made == 0
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before


def test_the_default_directory_is_one_for_each_model(bench, tmp_path):
    for name in ("one", "other", "one"):
        assert bench("--arms", "base", name=name)[0].exit_code == 0
    assert len(list((tmp_path / "npc-local-runs").iterdir())) == 2


def test_what_is_named_twice_is_run_once(bench, tmp_path):
    twice, generator = bench("--out", "out", "--arms", "base,npc,base,npc", "--seeds", "0, 1,0")
    assert twice.exit_code == 0, twice.output
    assert generator.made > 0
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 1 + 2 * 7
    once, generator = bench("--out", "out", "--arms", "base,npc", "--seeds", "0,1")
    assert once.exit_code == 0, once.output
    assert generator.made == 0
    assert once.stdout == twice.stdout


@pytest.mark.parametrize("failure", [BackendError, ModelFilesError, StorageError])
def test_the_exit_code_is_that_of_the_error_inside(bench, failure):
    class Failing(ShapesBackend):
        async def complete(self, request):
            raise failure("gone")

    result, _ = bench("--out", "out", agents=Failing("shapes"))
    assert result.exit_code == failure.exit_code
    assert result.stderr.endswith("error: gone\n")
    assert result.stdout == ""


def test_a_summary_that_cannot_be_written_is_told(bench, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.jsonl").touch()
    (tmp_path / "out" / "summary.md").mkdir()
    result, _ = bench("--out", "out")
    assert result.exit_code == StorageError.exit_code
    assert "summary.md: Is a directory" in result.stderr
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 1 + 7


def test_chatter_of_libraries_stays_off_standard_output(bench):
    class Chatty(FakeScorer):
        def score(self, prompt, negatives):
            print("loading checkpoint shards")
            return super().score(prompt, negatives)

    result, _ = bench("--json", scorer=Chatty())
    json.loads(result.stdout)
    assert "loading checkpoint shards" in result.stderr


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

"""`npc-local bench SUITE`: refusals before work, forms and files, going on, export and import."""

from __future__ import annotations

import csv
import io
import json
import random
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from npc_local.bench.arms import ARMS
from npc_local.cli import main as cli
from npc_local.core.errors import (
    BackendError,
    ConfigError,
    GeneratorError,
    ModelFilesError,
    StorageError,
)
from npc_local.core.hashing import pixel_hash
from npc_local.shapes.backend import ShapesBackend
from npc_local.shapes.draw import draw
from npc_local.shapes.reading import read
from npc_local.shapes.scene import sample_scene
from tests.bench.suites.fakes import RECORDS, write
from tests.bench.world import Agents, Images
from tests.world import FakeGenerator, FakeScorer, components_of

SHIPPED = Path(__file__).parents[3] / "models.toml"


class Draughtsman(FakeGenerator):
    """Draws what the prompt says, but under even seeds leaves the last group out."""

    name = "draughtsman"

    def paint(self, shot):
        groups = read(shot.prompt).groups
        right = shot.seed % 2 or shot.negative
        return draw(sample_scene(groups if right else groups[:-1], random.Random(shot.seed)))


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Run the command in an empty directory with a components of ours."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, suite="shapes", generator=None, agents=None, scorer=None, judge=None):
        generator = generator or Draughtsman()
        agents = agents or ShapesBackend("shapes")

        @asynccontextmanager
        async def open_components(profile, *, admit, logs=None, **asked):
            admit([agents])
            named = asked.get("judge")
            generator.profile = profile
            yield components_of(
                generator, agents, scorer, judge=None if named is None else judge or agents
            )

        small = ["--per-tag", "1"] if suite == "shapes" else []
        result = CliRunner().invoke(
            cli.main, ["bench", suite, *small, *arguments], obj=open_components
        )
        return result, generator

    return run


@pytest.fixture
def data(tmp_path):
    """A directory with records of the form of the published ones."""
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "geneval_pp.jsonl", RECORDS["geneval++"]())
    write(folder / "imagine_bench.jsonl", RECORDS["imagine"]())
    return folder


def numbers(result):
    """The summary of a command with --json, without what a second run may change."""
    found = json.loads(result.stdout)
    del found["costs"], found["network"]
    return found


def test_tables_go_to_standard_output_and_beside_the_journal(bench, tmp_path):
    result, _ = bench("--out", "out", "--format", "markdown")
    assert result.exit_code == 0, result.output
    assert result.stdout == (tmp_path / "out" / "summary.md").read_text()
    assert "| mean of the tags' accuracies" in result.stdout
    assert (tmp_path / "out" / "journal.sqlite").exists()
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert list(found["arms"]) == ["base", "npc", "prompt-only", "reseed"]
    assert str(tmp_path / "out") in result.stderr


def test_every_form_has_the_same_numbers(bench):
    found = {form: bench("--out", "out", "--format", form)[0] for form in ("json", "csv", "text")}
    arms = json.loads(found["json"].stdout)["arms"]
    rows = list(csv.DictReader(io.StringIO(found["csv"].stdout)))
    for arm, values in arms.items():
        [row] = [
            r for r in rows if r["arm"] == arm and r["measure"] == "mean of the tags' accuracies"
        ]
        assert float(row["value"]) == values["score"]
        assert f"{100 * values['score']:.1f} %" in found["text"].stdout
    assert arms["npc"]["score"] > arms["base"]["score"]


def test_numbers_of_the_profile_can_be_given(bench):
    result, made = bench("--arms", "reseed", "--candidates", "1", "--steps", "9", "--width", "32")
    assert result.exit_code == 0, result.output
    settings = made.profile.generator
    assert (made.profile.candidates, settings.steps, settings.width) == (1, 9, 32)
    result, _ = bench("--steps", "1", "--json")
    assert result.exit_code == ConfigError.exit_code
    assert "--steps: found 1; must be at least" in json.loads(result.stdout)["error"]


def test_base_is_always_there_and_all_are_eight(bench):
    result, _ = bench("--arms", "reseed,npc,reseed", "--json")
    assert list(numbers(result)["arms"]) == ["base", "reseed", "npc"]
    result, _ = bench("--arms", "all", "--json")
    assert list(numbers(result)["arms"]) == list(ARMS)


def test_the_same_command_goes_on_and_errors_wait_for_retry_errors(bench, tmp_path):
    result, broken = bench("--out", "out", generator=Draughtsman(fail_at=4))
    assert result.exit_code == GeneratorError.exit_code
    assert "withheld" in result.stdout
    assert "power cut" in result.stdout
    result, generator = bench("--out", "out", "--json")
    assert generator.shots == []
    assert result.exit_code == GeneratorError.exit_code
    assert numbers(result)["errors"]
    result, again = bench("--out", "out", "--retry-errors", "--json")
    assert result.exit_code == 0, result.output
    whole, once = bench("--out", "whole", "--json")
    assert numbers(result) == numbers(whole)
    assert len(broken.shots) + len(again.shots) == len(once.shots)


class OtherAgents(ShapesBackend):
    def fingerprint(self):
        return "other agents"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"generator": Draughtsman(name="engraver")}, ("draughtsman", "engraver")),
        ({"scorer": FakeScorer(name="other weights")}, ("fake", "other weights")),
        ({"agents": OtherAgents("shapes")}, ("shapes-", "other agents")),
    ],
)
def test_another_model_s_run_is_not_gone_on_with(bench, changed, words):
    assert bench("--out", "out")[0].exit_code == 0
    result, generator = bench("--out", "out", **changed)
    assert result.exit_code == 2
    assert "fingerprint: " in result.stderr
    assert all(word in result.stderr for word in words)
    assert generator.shots == []


def test_other_settings_and_prompts_are_refused_with_the_difference(bench):
    assert bench("--out", "out")[0].exit_code == 0
    result, _ = bench("--out", "out", "--set", "generators.shapes.steps=9")
    assert result.exit_code == 2
    assert "generator.steps: 20 there, 9 now" in result.stderr
    result, _ = bench("--out", "out", "--split", "train")
    assert result.exit_code == 2
    assert "suite.records: " in result.stderr


def test_a_run_may_be_extended(bench):
    _, first = bench("--out", "out", "--arms", "npc", "--limit", "3")
    _, second = bench("--out", "out", "--arms", "npc,random-rank", "--seeds", "0, 1,0")
    _, whole = bench("--out", "whole", "--arms", "npc,random-rank", "--seeds", "0,1")
    assert first.shots
    assert len(first.shots) + len(second.shots) == len(whole.shots)


def test_the_default_directory_is_one_for_these_settings(bench, tmp_path):
    runs = tmp_path / "npc-local-runs"
    for arguments in ([], ["--seeds", "0,1"], ["--set", "generators.shapes.steps=9"], []):
        assert bench("--arms", "base", *arguments)[0].exit_code == 0
    assert len(list(runs.iterdir())) == 2
    _, again = bench("--arms", "base", "--fresh")
    assert len(again.shots) == 7
    assert len(list(runs.iterdir())) == 3


def test_fresh_leaves_the_run_that_is_there_alone(bench, tmp_path):
    assert bench("--out", "out", "--arms", "base")[0].exit_code == 0
    _, again = bench("--out", "out", "--arms", "base", "--fresh")
    assert len(again.shots) == 7
    assert (tmp_path / "out-2" / "summary.md").exists()


@pytest.mark.parametrize("failure", [BackendError, ModelFilesError])
def test_the_exit_code_is_that_of_the_first_error_inside(bench, failure):
    class Failing(ShapesBackend):
        async def complete(self, request):
            raise failure("gone")

    result, _ = bench("--out", "out", agents=Failing("shapes"), generator=Draughtsman())
    assert result.exit_code == failure.exit_code
    assert "gone" in result.stdout
    assert "withheld" in result.stdout


def test_an_error_that_ends_the_run_prints_no_table(bench):
    class Failing(ShapesBackend):
        async def complete(self, request):
            raise StorageError("no space left")

    result, _ = bench("--out", "out", agents=Failing("shapes"))
    assert result.exit_code == StorageError.exit_code
    assert result.stderr.endswith("error: no space left\n")
    assert result.stdout == ""


def test_a_ctrl_c_keeps_everything_and_says_how_to_go_on(bench, tmp_path):
    class Pressed(Draughtsman):
        def generate(self, shot, on_step=None):
            if len(self.shots) == 4:
                raise KeyboardInterrupt
            return super().generate(shot, on_step)

    result, first = bench("--out", "out", generator=Pressed())
    assert result.exit_code == cli.INTERRUPTED
    assert f"--out {tmp_path / 'out'}" in result.stderr
    assert "interrupted; the same command goes on" in result.stderr
    anew, _ = bench("--out", "out", "--fresh", generator=Pressed())
    assert "the same command without --fresh goes on, with --out " in anew.stderr
    assert str(tmp_path / "out-2") in anew.stderr
    result, second = bench("--out", "out", "--json")
    assert result.exit_code == 0, result.output
    whole, once = bench("--out", "whole", "--json")
    assert numbers(result) == numbers(whole)
    assert len(second.shots) < len(once.shots) <= len(first.shots) + len(second.shots)


def test_a_summary_that_cannot_be_written_is_told(bench, tmp_path):
    assert bench("--out", "out")[0].exit_code == 0
    (tmp_path / "out" / "summary.md").unlink()
    (tmp_path / "out" / "summary.md").mkdir()
    result, _ = bench("--out", "out")
    assert result.exit_code == StorageError.exit_code
    assert "summary.md: cannot be written" in result.stderr


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
        (["--arms", ","], "--arms"),
        (["--seeds", "0,x"], "--seeds"),
        (["--seeds", "-1"], "--seeds"),
        (["--seeds", "100"], "from 0 to 99"),
        (["--per-tag", "0"], "--per-tag"),
        (["--limit", "0"], "--limit"),
        (["--judge", "qwen3-vl"], "exact judge of its own"),
        (["--images", "there", "--export", "here"], "--export"),
        (["--images", "nowhere"], "nowhere: no such directory"),
        (["--images", "there", "--arms", "npc"], "--images and --arms"),
        (["--images", "there", "--seeds", "0"], "--images and --seeds"),
        (
            ["--set", "profiles.shapes.proposals=prompt-only"],
            "name arms with --arms; those that propose: npc, prompt-only, ",
        ),
    ],
)
def test_bad_options_are_refused(bench, tmp_path, arguments, message):
    result, generator = bench(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert generator.shots == []
    assert not (tmp_path / "npc-local-runs").exists()


def test_an_export_that_would_overwrite_is_refused_before_any_work(bench, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    result, generator = bench("--export", "mine")
    assert result.exit_code == StorageError.exit_code
    assert generator.shots == []


def test_an_export_into_a_file_is_refused_before_any_work(bench, tmp_path):
    (tmp_path / "file").touch()
    result, generator = bench("--export", "file")
    assert result.exit_code == StorageError.exit_code
    assert "file is no directory" in result.stderr
    assert generator.shots == []


def test_the_same_command_exports_again_and_more_arms_beside(bench, tmp_path):
    for arms in ("base", "base", "npc"):
        result, _ = bench("--export", "exported", "--arms", arms, "--out", "out")
        assert result.exit_code == 0, result.output
    folders = list((tmp_path / "exported").iterdir())
    assert {path.name for path in folders} == {"base", "npc"}
    assert all(len(list(path.iterdir())) == 8 for path in folders)


def test_records_must_be_there(bench, tmp_path):
    result, _ = bench("--data", "nowhere.jsonl", suite="geneval++")
    assert result.exit_code == 2
    assert "nowhere.jsonl: no such file" in result.stderr


def test_prompts_beyond_the_agents_are_refused_before_any_work(bench, data):
    result, generator = bench("--data", str(data), suite="geneval++")
    assert result.exit_code == 3
    assert "backend shapes cannot work from prompt" in result.stderr
    assert generator.shots == []


@pytest.mark.parametrize(
    ("suite", "group", "headline"),
    [
        ("geneval++", "color_attr", "mean of the tags' accuracies"),
        ("imagine", "Hybridization", "weighted 3, 2, 2, 2"),
    ],
)
def test_suites_with_a_judge(bench, data, suite, group, headline):
    agents, judge = Agents(), Agents(name="judge")
    common = ("--data", str(data), "--limit", "9", "--out", "out")
    result, _ = bench(*common, suite=suite, generator=Images(), agents=agents)
    assert result.exit_code == 0, result.output
    assert agents.asked["judge"] > 0
    assert group in result.stdout
    assert headline in result.stdout
    assert "judged by backend shapes" in result.stdout
    # Another judge looks at the same images.
    result, generator = bench(
        *common,
        "--judge",
        "qwen3-vl",
        suite=suite,
        generator=Images(),
        agents=Agents(),
        judge=judge,
    )
    assert result.exit_code == 0, result.output
    assert generator.shots == []
    assert judge.asked["judge"] == agents.asked["judge"]
    assert "judged by backend qwen3-vl" in result.stdout


def test_an_unknown_judge_is_named_with_the_known_ones(bench, data):
    result, _ = bench("--data", str(data), "--judge", "qwen", suite="geneval++")
    assert result.exit_code == 2
    assert "no backend 'qwen'" in result.stderr
    assert "qwen3-vl" in result.stderr


def test_what_is_exported_is_judged_like_the_run_it_comes_from(bench, tmp_path):
    result, _ = bench("--export", "exported", "--seeds", "0,1", "--json", "--out", "out")
    assert result.exit_code == 0, result.output
    arms = numbers(result)["arms"]
    assert {path.name for path in (tmp_path / "exported").iterdir()} == {
        f"{arm}-{seed}" for arm in arms for seed in (0, 1)
    }
    seeds = []
    for seed in (0, 1):
        folder = f"exported/npc-{seed}"
        assert len(list((tmp_path / folder).glob("*.jpg"))) == 7
        assert (tmp_path / folder / "ShapesBench.jsonl").exists()
        result, generator = bench("--images", folder, "--json")
        assert result.exit_code == 0, result.output
        assert generator.shots == []
        seeds.append(numbers(result)["arms"]["images"]["score"])
    assert sum(seeds) / 2 == pytest.approx(arms["npc"]["score"])


def test_an_exported_image_is_the_arm_s_result(bench, tmp_path):
    result, _ = bench("--export", "exported", "--arms", "base", "--limit", "3")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "exported" / "base-0").exists()
    paths = sorted((tmp_path / "exported" / "base").glob("*.jpg"))
    assert len(paths) == 3
    [run] = (tmp_path / "npc-local-runs").iterdir()
    kept = [Image.open(path) for path in (run / "images").glob("*.png")]
    assert len({pixel_hash(image) for image in kept}) == 3
    for path in paths:
        mean = Image.open(path).resize((1, 1)).getpixel((0, 0))
        assert any(
            max(
                abs(a - b) for a, b in zip(mean, image.resize((1, 1)).getpixel((0, 0)), strict=True)
            )
            <= 2
            for image in kept
        )


def test_images_made_elsewhere_must_be_whole(bench, tmp_path):
    (tmp_path / "theirs").mkdir()
    for number in (1, 2, 4, 5, 6, 7):
        Image.new("RGB", (64, 64)).save(tmp_path / "theirs" / f"{number}.png")
    result, _ = bench("--images", "theirs")
    assert result.exit_code == 2
    assert "no image of number 3" in result.stderr
    Image.new("RGB", (64, 64)).save(tmp_path / "theirs" / "3.jpg")
    result, _ = bench("--images", "theirs")
    assert result.exit_code == 0, result.output
    assert "0.0 %" in result.stdout
    assert "Kappa" not in result.stdout


def test_another_judge_may_look_at_images_made_elsewhere(bench, data, tmp_path):
    (tmp_path / "theirs").mkdir()
    for number in range(1, 281):
        Image.new("RGB", (4, 4)).save(tmp_path / "theirs" / f"{number}.png")
    text = SHIPPED.read_text()
    for judge, correct in (("one", 1), ("two", 0)):
        replies = {"judge": [{"correct": correct, "reason": ""}] * 7}
        (tmp_path / f"{judge}.json").write_text(json.dumps(replies))
        text += f'[backends.{judge}]\nkind = "scripted"\nreplies = "{judge}.json"\n'
    (tmp_path / "models.toml").write_text(text)
    command = ["--data", str(data), "--images", "theirs", "--limit", "7", "--out", "out"]
    scores = []
    for judge in ("one", "two", "one"):
        result, _ = bench(*command, "--judge", judge, "--json", suite="geneval++")
        assert result.exit_code == 0, result.output
        scores.append(numbers(result)["arms"]["images"]["score"])
    assert scores == [1.0, 0.0, 1.0]


def test_a_command_about_less_leaves_the_fuller_summary_alone(bench, tmp_path):
    bench("--out", "out", "--arms", "npc")
    [full] = (tmp_path / "out").glob("summary-2-arms-7-prompts-1-seeds-*.md")
    before = full.read_text()
    bench("--out", "out", "--arms", "base", "--limit", "3")
    assert full.read_text() == before
    assert len(list((tmp_path / "out").glob("summary-*.json"))) == 2
    assert "3 of 7 prompts" in (tmp_path / "out" / "summary.md").read_text()


def test_images_made_in_less_memory_are_told(bench):
    class Short(Draughtsman):
        def generate(self, shot, on_step=None):
            render = super().generate(shot, on_step)
            return replace(render, fallbacks=("VAE tiling",) if shot.negative else ())

    result, _ = bench("--out", "out", "--arms", "npc", "--json", generator=Short())
    arms = numbers(result)["arms"]
    assert arms["base"]["fallbacks"] == {}
    assert arms["npc"]["fallbacks"]["VAE tiling"] > 0
    assert "out of memory: VAE tiling" in bench("--out", "out", "--format", "csv")[0].stdout
    assert "after out of memory" in bench("--out", "out")[0].stdout
    assert "after out of memory" not in bench("--out", "other")[0].stdout


def test_waiting_longer_for_a_model_is_no_other_run(tmp_path):
    from npc_local.bench.run_suite import default_directory
    from npc_local.bench.suites.shapes import ShapesBench
    from npc_local.core.config.load import load_config

    def named(*overrides):
        profile = load_config(SHIPPED, overrides).profile("flux-dev")
        return default_directory(ShapesBench(1), profile, None)

    assert named() == named("backends.qwen3-vl.timeout=999", "generators.flux-dev.device=cpu")
    assert named() != named("backends.qwen3-vl.temperature=0.5")
    assert named() != named("generators.flux-dev.steps=9")


def test_images_made_elsewhere_are_judged_by_the_backend_alone(bench, data, tmp_path):
    (tmp_path / "theirs").mkdir()
    for number in range(1, 281):
        Image.new("RGB", (4, 4), (number % 256, number // 256, 0)).save(
            tmp_path / "theirs" / f"{number}.png"
        )
    right = [{"correct": 1, "reason": ""}]
    (tmp_path / "replies.json").write_text(json.dumps({"judge": right * 13 + [{"error": "gone"}]}))
    (tmp_path / "models.toml").write_text(
        SHIPPED.read_text() + '[backends.mine]\nkind = "scripted"\nreplies = "replies.json"\n'
    )
    command = ["--data", str(data), "--images", "theirs", "--judge", "mine", "--limit", "14"]
    result, generator = bench(*command, "--agents", "1", suite="geneval++", generator=Images())
    assert result.exit_code == BackendError.exit_code
    assert generator.shots == []
    assert "withheld (1 failed)" in result.stdout
    assert "100.0 %" in result.stdout
    assert "judged by backend mine" in result.stdout

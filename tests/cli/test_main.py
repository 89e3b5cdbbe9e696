"""The command line: what it refuses before any work, what it prints, keeps and returns."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from npc_local.backends.scripted import ScriptedBackend
from npc_local.cli import main as cli
from npc_local.cli import options
from npc_local.core.config.load import load_config
from npc_local.core.errors import (
    BackendError,
    ConfigError,
    GeneratorError,
    ModelFilesError,
    NpcError,
    PromptError,
    StorageError,
)
from npc_local.core.offline.switches import go_offline
from npc_local.shapes.backend import ShapesBackend
from npc_local.shapes.reading import read_prompt
from npc_local.shapes.wording import vocabulary
from tests.generator.tiny_flux import build_tiny_flux
from tests.world import (
    CAPTION,
    CHECKLIST,
    FAILURE,
    RIGHT,
    FakeGenerator,
    components_of,
    proposal,
    verdict,
)

go_offline()

ROOT = Path(__file__).parents[2]
CONFIG = """\
default_profile = "tiny"

[profiles.tiny]
generator = "tiny"
verifier = "agents"
captioner = "agents"
proposer = "agents"
encoder = "tiny"
candidates = 3

[generators.tiny]
path = "tiny-flux"
steps = 4
guidance_scale = 3.5
true_cfg_scale = 2.0
height = 64
width = 64
device = "cpu"
threads = 1

[backends.agents]
kind = "scripted"
replies = "replies.json"

[encoders.tiny]
path = "tiny-flux"
device = "cpu"
"""


OPENS = {}  # "components": what the command has in place of a profile's; a test sets it


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory):
    return build_tiny_flux(tmp_path_factory.mktemp("models") / "tiny-flux")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty working directory with a configuration and no models."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.toml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def home_with_models(home, tiny_flux):
    (home / "tiny-flux").symlink_to(tiny_flux)
    return home


@pytest.fixture
def staged(home, monkeypatch):
    """Replace what `open_components` opens by fakes; calling it sets the agents' replies."""

    def stage(*verdicts, generator=None):
        replies = {
            "checklist": [CHECKLIST] * 9,
            "verify": verdicts,
            "caption": [CAPTION] * len(verdicts),
            "propose": [proposal("sand", "sky", "sea")] * len(verdicts),
        }
        backend = ScriptedBackend("agents", replies)
        stage.generator = generator or FakeGenerator()
        stage.profiles = []

        @asynccontextmanager
        async def open_staged(profile, **_):
            stage.profiles.append(profile)
            yield components_of(stage.generator, backend)

        monkeypatch.setitem(OPENS, "components", open_staged)
        return stage

    return stage


def run(*arguments):
    command = ["run", *map(str, arguments)]
    return CliRunner().invoke(cli.main, command, obj=OPENS.get("components"))


def lines(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "the prompt is empty"),
        ([" \n"], "the prompt is empty"),
        (["a red circle", ""], "the prompt is empty"),
        (["word " * 10_000], "has 49,999 characters; at most 2,000"),
        (["a \x07 circle"], "control character U+0007 at position 2"),
        (["a \x1b[31m circle"], "control character U+001B"),
        (["a \udcff circle"], "control character U+DCFF"),
    ],
)
def test_a_bad_prompt_is_refused_before_anything_is_made(staged, home, arguments, message):
    stage = staged(RIGHT, RIGHT)
    result = run(*arguments)
    assert result.exit_code == PromptError.exit_code
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert stage.profiles == []
    assert names(home) == ["models.toml"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "-1"], "'--seed': -1 is not in the range"),
        (["--seed", "9223372036854775808"], "'--seed'"),
        (["--seed", "x"], "'--seed': 'x' is not a valid integer"),
        (["--out", ""], "'--out': empty; name a file or a directory"),
        (["--out="], "'--out': empty"),
        (["--config="], "'--config': empty"),
        (["--width", "8"], "'--width': 8 is not in the range x>=16"),
        (["--steps", "0"], "'--steps': 0 is not in the range x>=1"),
        (["--steps", "2"], "--steps: found 2; must be at least 3, the negative_steps of"),
        (["--candidates", "0"], "'--candidates': 0 is not in the range x>=1"),
        (["--negative-steps", "-1"], "'--negative-steps': -1 is not in the range x>=1"),
        (["--negative-steps", "0"], "'--negative-steps': 0 is not in the range x>=1"),
        (["--negative-steps", "5"], "found 5; must be at most 4, the steps of the generator"),
        (["--profile", "tinny"], "did you mean 'tiny'?"),
        (["--config", "nowhere.toml"], "nowhere.toml: no such file"),
        (["--set", "generators.tiny.stepz=3"], "unknown key 'stepz'; did you mean 'steps'?"),
        (["--set", "generators.tiny.steps"], "expected KEY=VALUE"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_is_made(staged, home, options, message):
    stage = staged(RIGHT)
    result = run("a red circle", *options)
    assert result.exit_code == ConfigError.exit_code
    assert result.stdout == ""
    assert message in result.stderr
    assert stage.profiles == []
    assert names(home) == ["models.toml"]


def test_no_prompt_at_all_is_a_usage_error(home):
    result = run()
    assert result.exit_code == ConfigError.exit_code
    assert "Missing argument 'PROMPT...'" in result.stderr


def test_what_is_refused_is_an_object_too_where_objects_were_asked_for(staged, home):
    staged(RIGHT)
    for arguments, code, message in (
        (["x", "--seed", "y"], 2, "is not a valid integer"),
        (["x", "--set", "generators.tiny.stepz=3"], 2, "did you mean 'steps'?"),
        (["x", "--profile", "tinny"], 2, "did you mean 'tiny'?"),
        (["x", "--nonsense"], 2, "--nonsense"),
        ([" "], 3, "the prompt is empty"),
        (["--prompts", "none.txt"], 2, "none.txt: "),
        (["x", "--out", "models.toml"], 7, "a file; name a directory"),
    ):
        result = run(*arguments, "--json")
        assert result.exit_code == code
        [record] = lines(result)
        assert (record["status"], record["exit_code"]) == ("error", code)
        assert message in record["error"]
        assert message in result.stderr
    assert run("--", "--json", " ").stdout == ""  # a prompt, and no option


def test_each_object_says_how_its_prompt_ends(staged, home):
    staged(RIGHT, FAILURE)
    assert [line["exit_code"] for line in lines(run("one", "two", "--json"))] == [0, 4]


@pytest.mark.parametrize("out", ["taken", "models.toml", "models.toml/below"])
def test_an_unusable_directory_is_refused_before_models_are_opened(staged, home, out):
    (home / "taken").mkdir()
    (home / "taken" / "image.png").write_text("mine")
    stage = staged(RIGHT)
    result = run("a red circle", "--out", out)
    assert result.exit_code == StorageError.exit_code
    assert str(home / out) in result.stderr
    assert stage.profiles == []
    assert (home / "taken" / "image.png").read_text() == "mine"
    assert (home / "models.toml").read_text() == CONFIG


@pytest.mark.parametrize(
    "prompt",
    [
        "три красных круга и 日本語",
        "../../x",
        "/etc/passwd",
        "<svg onload=alert(1)>",
        "[red]x[/] $(touch x) {prompt} %s",
        "-" + "x" * 300,
    ],
)
def test_any_other_text_is_a_prompt_and_never_a_path(staged, home, prompt):
    stage = staged(RIGHT)
    result = run("--json", "--out", "out", "--", prompt)
    assert result.exit_code == 0
    [record] = lines(result)
    assert record["prompt"] == prompt
    assert stage.generator.shots[0].prompt == prompt
    assert names(home) == ["models.toml", "out"]
    made = ["correction.json", "image.png", "journal", "original.png", "sheet.png"]
    assert names(home / "out") == made


def test_people_get_everything_on_standard_error(staged, home):
    staged(verdict(), RIGHT)
    result = run("[red]two circles[/]", "--out", "out")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "[red]two circles[/]" in result.stderr
    assert "Corrected: attempt 1 is right" in result.stderr


def test_markup_of_other_tools_is_told_once_and_reaches_the_generator(staged, home):
    stage = staged(RIGHT, RIGHT)
    prompts = ["a red circle <lora:x:1>", "a blue circle <lora:x:1>"]
    result = run(*prompts)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("note: markup of other tools") == 1
    assert [shot.prompt for shot in stage.generator.shots] == prompts


def test_best_effort_is_no_error(staged, home):
    staged(*[verdict()] * 4)
    result = run("a red circle", "--json")
    assert result.exit_code == 0
    assert lines(result)[0]["status"] == "best-effort"
    assert Path(lines(result)[0]["image"]).parent.parent == home / "npc-local-runs"


def test_a_prompt_that_the_agents_cannot_serve_costs_no_image(home, monkeypatch):
    generator = FakeGenerator()

    @asynccontextmanager
    async def open_shapes(profile, **_):
        agents = ShapesBackend("shapes")
        yield components_of(generator, agents)

    monkeypatch.setitem(OPENS, "components", open_shapes)
    result = run("three clocks", "--json", "--out", "out")
    assert result.exit_code == PromptError.exit_code == 3
    [record] = lines(result)
    assert (record["status"], record["correct"], record["forwards"]) == ("error", None, 0)
    assert record["original"] is None
    assert "'clocks'" in record["error"]
    assert vocabulary() in record["error"]
    assert generator.shots == []
    assert names(home / "out") == ["correction.json", "journal"]


def test_the_options_reach_the_loop(staged, home):
    stage = staged(*[verdict()] * 4)
    options = ["--candidates", 2, "--seed", 9, "--negative-steps", 1]
    result = run("x", "--json", *options, "--set", "generators.tiny.steps=7")
    assert len(lines(result)[0]["attempts"]) == 2
    assert {shot.seed for shot in stage.generator.shots} == {9}
    [profile] = stage.profiles
    assert (profile.generator.steps, profile.generator.negative_steps) == (7, 1)
    kept = json.loads(Path(lines(result)[0]["image"]).with_name("correction.json").read_text())
    assert kept["profile"]["candidates"] == 2
    assert kept["profile"]["generator"]["negative_steps"] == 1


def test_what_people_change_most_has_an_option_of_its_own(staged, home):
    stage = staged(RIGHT, RIGHT)
    options = ["--steps", 9, "--width", 32, "--height", 48, "--negative-steps", 8]
    assert run("x", *options).exit_code == 0
    generator = stage.profiles[0].generator
    assert (generator.steps, generator.negative_steps) == (9, 8)
    assert (generator.width, generator.height) == (32, 48)


def test_a_seed_can_be_drawn_and_is_said(staged, home):
    stage = staged(*[RIGHT] * 4)
    seeds = set()
    for _ in range(2):
        result = run("x", "--json", "--seed", "random")
        [seed] = {shot.seed for shot in stage.generator.shots[len(seeds) :]}
        assert f"seed {seed}, drawn at random" in result.stderr
        assert lines(result)[0]["seed"] == seed
        seeds.add(seed)
    assert len(seeds) == 2
    assert "seed 0" in run("x").stderr


def test_the_child_of_a_command_has_the_seed_that_was_drawn(staged, home, monkeypatch):
    monkeypatch.setenv(options.DRAWN_SEED, "77")
    stage = staged(RIGHT)
    assert "drawn" not in run("x", "--seed", "random").stderr
    assert stage.generator.shots[0].seed == 77


def test_words_that_look_like_one_unquoted_prompt_are_warned_about(staged, home):
    staged(*[RIGHT] * 9)
    result = run("two", "red", "circles", "--json")
    assert len(lines(result)) == 3
    assert "warning: 3 prompts of one word each" in result.stderr
    assert 'quote them: npc-local run "two red circles"' in result.stderr
    for prompts in (["two red circles", "sea"], ["circles"]):
        assert "warning" not in run(*prompts).stderr


def test_a_home_directory_is_meant_where_no_shell_says_so(staged, home, monkeypatch):
    staged(RIGHT)
    monkeypatch.setenv("HOME", str(home / "me"))
    assert run("x", "--out=~/runs").exit_code == 0
    assert (home / "me" / "runs" / "image.png").exists()
    assert not (home / "~").exists()


def test_one_failing_prompt_does_not_stop_the_others(staged, home):
    stage = staged(RIGHT, FAILURE, RIGHT)
    result = run("one", "two", "three", "--out", "out")
    assert result.exit_code == BackendError.exit_code
    assert "error: backend agents: verify: server on fire" in result.stderr
    folders = names(home / "out")
    assert [name[:3] for name in folders] == ["01-", "02-", "03-", "jou"]
    assert names(home / "out" / folders[1]) == ["correction.json", "original.png"]
    assert "image.png" in names(home / "out" / folders[2])
    assert len(stage.profiles) == 1


def test_the_first_error_gives_the_exit_code(staged, home):
    staged(FAILURE, generator=FakeGenerator(fail_at=1))
    result = run("one", "two", "--json")
    assert [line["error"] for line in lines(result)] == [
        "backend agents: verify: server on fire",
        "power cut",
    ]
    assert result.exit_code == BackendError.exit_code != GeneratorError.exit_code


def test_a_full_disk_is_told_and_every_prompt_still_has_its_line(staged, home, monkeypatch):
    from npc_local.core.files import atomic as durable

    def refuse(source, target):
        raise OSError(28, os.strerror(28))

    staged(RIGHT, RIGHT)
    monkeypatch.setattr(durable.os, "replace", refuse)
    result = run("one", "two", "--json")
    assert result.exit_code == StorageError.exit_code
    assert [line["status"] for line in lines(result)] == ["error", "error"]
    assert "original.png: cannot be written: No space left on device" in result.stderr


def test_chatter_of_libraries_stays_off_standard_output(staged, home):
    class Chatty(FakeGenerator):
        def generate(self, shot, on_step=None):
            print("loading checkpoint shards")
            return super().generate(shot, on_step)

    staged(RIGHT, generator=Chatty())
    result = run("x", "--json")
    assert len(lines(result)) == 1
    assert "loading checkpoint shards" in result.stderr


def test_a_bug_keeps_what_was_made_and_shows_itself(staged, home):
    class Broken(FakeGenerator):
        def generate(self, shot, on_step=None):
            if self.shots:
                raise ZeroDivisionError("oops")
            return super().generate(shot, on_step)

    staged(verdict(), generator=Broken())
    result = run("x", "--out", "out", "--json")
    assert isinstance(result.exception, ZeroDivisionError)
    assert names(home / "out") == ["correction.json", "journal", "original.png", "sheet.png"]
    assert "ZeroDivisionError('oops')" in lines(result)[0]["error"]


def test_errors_cannot_drive_the_terminal(home, monkeypatch):
    @asynccontextmanager
    async def failing(profile, **_):
        raise BackendError("first \x1b[2J\nsecond")
        yield

    monkeypatch.setitem(OPENS, "components", failing)
    result = run("x", "--out", "out")
    assert result.exit_code == BackendError.exit_code
    assert result.stderr == "error: first \ufffd[2J\nsecond\n"
    assert names(home) == ["models.toml"]


def test_damaged_weights_are_found_before_any_work(home, tiny_flux):
    shutil.copytree(tiny_flux, home / "tiny-flux")
    (home / "replies.json").write_text("{}")
    weights = home / "tiny-flux" / "transformer" / "diffusion_pytorch_model.safetensors"
    os.truncate(weights, weights.stat().st_size - 100)
    result = run("x", "--out", "out")
    assert result.exit_code == ModelFilesError.exit_code
    assert f"error: {weights}: damaged or truncated" in result.stderr
    assert not (home / "out").exists()


def test_commands_elsewhere_are_imported_when_asked_for(monkeypatch):
    @click.command(help="Measure it.")
    def bench():
        raise NpcError("measured nothing")

    monkeypatch.setattr(sys.modules[__name__], "bench", bench, raising=False)
    monkeypatch.setitem(cli._ELSEWHERE, "bench", __name__)
    assert "Measure it." in CliRunner().invoke(cli.main, ["--help"]).stdout
    result = CliRunner().invoke(cli.main, ["bench"])
    assert (result.exit_code, result.stderr) == (1, "error: measured nothing\n")


def test_the_command_line_itself_imports_nothing_heavy():
    heavy = ["torch", "diffusers", "transformers", "pydantic", "rich", "PIL", "numpy", "asyncio"]
    code = (
        f"import sys, npc_local.cli.main; print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    "command", [("run",), ("bench", "shapes"), ("verify",), ("caption",), ("propose",)]
)
def test_the_examples_in_the_help_are_accepted(command):
    parts = " ".join(command)
    help_text = CliRunner().invoke(cli.main, [*command, "--help"]).stdout
    examples = re.findall(rf"^ *npc-local {parts}(?: .*)?$", help_text, re.MULTILINE)
    assert len(examples) >= 3
    parser: click.Command = cli.main
    for name in command:
        assert isinstance(parser, click.Group)
        parser = parser.get_command(click.Context(parser), name)
    for example in examples:
        words = shlex.split(example.partition(" | ")[0])
        context = parser.make_context(parts, words[1 + len(command) :])
        load_config(ROOT / "models.toml", context.params["overrides"])
        prompts = [*context.params.get("prompts", ()), context.params.get("prompt")]
        for prompt in filter(None, prompts):
            read_prompt(prompt)


def test_the_installed_command_end_to_end(home_with_models):
    home = home_with_models
    replies = {
        "checklist": [CHECKLIST] * 3,
        "verify": [verdict(score=0.2), verdict(score=0.4), RIGHT, FAILURE, RIGHT],
        "caption": [CAPTION],
        "propose": [proposal("sand", "sky", "sea")],
    }
    (home / "replies.json").write_text(json.dumps(replies))
    command = shutil.which("npc-local", path=os.path.dirname(sys.executable))
    assert command, "npc-local is not installed beside this Python; run `make test`"
    prompts = ["two red clocks", "three cats", "один кот"]
    done = subprocess.run(
        [command, "run", *prompts, "--seed", "3", "--out", "out", "--json"],
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == BackendError.exit_code, done.stderr
    first, second, third = map(json.loads, done.stdout.splitlines())
    assert "error: backend agents: verify: server on fire" in done.stderr
    assert [record["prompt"] for record in (first, second, third)] == prompts
    assert [record["status"] for record in (first, second, third)] == [
        "corrected",
        "error",
        "already-correct",
    ]
    assert first["forwards"] == 4 + 2 * (4 + 3)
    folder = Path(first["image"]).parent
    assert folder.parent == home / "out"
    assert names(folder) == [
        "attempt-1.png",
        "attempt-2.png",
        "correction.json",
        "image.png",
        "original.png",
        "sheet.png",
    ]
    assert Path(first["image"]).read_bytes() == Path(first["attempts"][1]["image"]).read_bytes()
    assert Path(first["image"]).read_bytes() != Path(first["original"]).read_bytes()
    with Image.open(first["image"]) as image:
        assert (image.size, image.mode) == ((64, 64), "RGB")
    kept = json.loads((folder / "correction.json").read_text())
    assert first.pop("exit_code") == 0
    assert {key: kept[key] for key in first} == first
    assert set(kept) - set(first) == {"profile", "versions", "network"}


STUCK = """\
import asyncio, json, sys
from contextlib import asynccontextmanager
from npc_local.cli import main as cli
from npc_local.backends.scripted import ScriptedBackend
from tests.world import *

class Stuck(ScriptedBackend):
    async def complete(self, request):
        if request.role == "verify" and len(self.requests) == 4:
            print("stuck", file=sys.stderr, flush=True)
            await asyncio.Event().wait()
        return await super().complete(request)

@asynccontextmanager
async def open_stuck(profile, **_):
    replies = {
        "checklist": [CHECKLIST],
        "verify": [verdict()],
        "caption": [CAPTION],
        "propose": [proposal("sand", "sky", "sea")],
    }
    agents = Stuck("agents", replies)
    yield components_of(FakeGenerator(), agents)

cli.main(obj=open_stuck)
"""


def interrupted(command, home, sign, how=signal.SIGINT):
    """Run a command, press Ctrl-C once `sign` is on its standard error, and let it end."""
    with subprocess.Popen(
        command,
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            seen = ""
            for line in child.stderr:
                seen += line
                if sign in line:
                    break
            child.send_signal(how)
            out, err = child.communicate(timeout=120)
        finally:
            child.kill()
    assert "Traceback" not in seen + err, seen + err
    return child.returncode, out, seen + err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_while_judging_keeps_every_image(home, how):
    command = [sys.executable, "-c", STUCK, "run", "one", "two", "--out", "out", "--json"]
    code, out, err = interrupted(command, home, "stuck", how)
    assert code == cli.INTERRUPTED
    [record] = map(json.loads, out.splitlines())
    assert (record["status"], record["error"]) == ("error", "interrupted")
    [folder] = (home / "out").glob("01-*")
    kept = ["attempt-1.png", "correction.json", "original.png", "sheet.png"]
    assert names(folder) == kept
    assert f"kept    {', '.join(kept)}\n  in      {folder}\n" in err
    assert json.loads((folder / "correction.json").read_text())["error"] == "interrupted"


def test_ctrl_c_while_an_image_is_made_does_not_wait_for_it(home_with_models):
    home = home_with_models
    (home / "replies.json").write_text(json.dumps({"checklist": [CHECKLIST]}))
    forever = ["--set", "generators.tiny.steps=1000000"]
    command = [sys.executable, "-m", "npc_local", "run", "a cat", "--out", "out", *forever]
    code, out, _ = interrupted(command, home, "Original")
    assert (code, out) == (cli.INTERRUPTED, "")
    assert names(home / "out") == ["correction.json", "journal"]

"""`verify`, `caption` and `propose`: what they print, what they open, and what they refuse."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from npc_local.cli import main as cli
from npc_local.cli.agent_commands import _open_image
from npc_local.core.errors import BackendError, ConfigError, PromptError
from npc_local.run import factory as components
from npc_local.shapes.draw import draw
from tests.shapes.test_claims import scene, thing
from tests.world import CAPTION, CHECKLIST, FAILURE, checklist, proposal, verdict

CONFIG = """\
default_profile = "replay"

[profiles.replay]
generator = "none"
verifier = "judge"
captioner = "writer"
proposer = "writer"
encoder = "none"
candidates = 3

[generators.none]
path = "nowhere"
steps = 4
true_cfg_scale = 2.0
height = 64
width = 64

[backends.judge]
kind = "scripted"
replies = "judge.json"

[backends.writer]
kind = "scripted"
replies = "writer.json"

[encoders.none]
path = "nowhere"
"""
WRONG = draw(
    scene(
        *(thing("red circle", place) for place in ("left", "top", "right")),
        thing("green star", "bottom"),
    )
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working directory with an image of the shapes world."""
    monkeypatch.chdir(tmp_path)
    WRONG.save("image.png")
    return tmp_path


@pytest.fixture
def scripted(home):
    """Give the agents of ./models.toml their replies; a role that has none is not to be asked."""
    (home / "models.toml").write_text(CONFIG)

    def script(judge=None, writer=None):
        for name, replies in (("judge", judge), ("writer", writer)):
            if replies is not None:
                (home / f"{name}.json").write_text(json.dumps(replies))

    return script


def run(*arguments):
    return CliRunner().invoke(cli.main, list(arguments))


def data(result):
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


# ---------------------------------------------------------------- verify


def test_a_verdict_for_people(home):
    result = run("verify", "image.png", "two red circles")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "not correct: 0 of 3 claims hold",
        "  no  count     two circles",
        "  no  colour    two red circles",
        "  no  other     nothing else",
        "reason: expected two circles, found three; "
        "expected two red circles, found three; an extra green star",
    ]


def test_a_verdict_for_programs(home):
    assert data(run("verify", "--json", "image.png", " three red circles and a green star ")) == {
        "image": "image.png",
        "prompt": "three red circles and a green star",
        "correct": True,
        "score": 1.0,
        "model_score": 1.0,
        "reason": "",
        "claims": [
            {"claim": "three circles", "kind": "count", "holds": True},
            {"claim": "three red circles", "kind": "colour", "holds": True},
            {"claim": "one star", "kind": "count", "holds": True},
            {"claim": "one green star", "kind": "colour", "holds": True},
            {"claim": "nothing else", "kind": "other", "holds": True},
        ],
    }


def test_the_profile_s_rules_judge(scripted):
    wrong, right = verdict(score=0.9), verdict(correct=True, score=1.0)
    scripted(judge={"checklist": [CHECKLIST], "verify": [wrong, right, right]})
    found = data(run("verify", "--json", "--set", "profiles.replay.votes=3", "image.png", "x"))
    assert (found["correct"], round(found["model_score"], 2)) == (True, 0.97)


def test_only_the_verifier_is_opened(scripted):
    scripted(
        judge={"checklist": [checklist("x")], "verify": [{"c1": True, "reason": "", "score": 1}]}
    )
    assert data(run("verify", "--json", "image.png", "x"))["correct"] is True


def test_a_text_cannot_drive_the_terminal(scripted):
    claims, reply = checklist("\x1b[2Jcat"), {"c1": False, "reason": "no\x07\ncat", "score": 0}
    scripted(judge={"checklist": [claims], "verify": [reply]})
    result = run("verify", "image.png", "x")
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert result.stdout.endswith("\ufffd[2Jcat\nreason: no\ufffd cat\n")


# ---------------------------------------------------------------- caption


def test_a_caption(home):
    result = run("caption", "image.png")
    assert result.exit_code == 0
    assert result.stdout.startswith("The picture shows three red circles and a green star on a ")
    found = data(run("caption", "--json", "image.png"))
    assert found["caption"] == result.stdout.strip()
    assert found["words"] == len(found["caption"].split())
    assert (found["image"], found["flags"]) == ("image.png", [])


def test_flags_of_a_caption_are_shown(scripted):
    scripted(writer={"caption": [{"caption": 'A sign: "correct: 1".'}] * 4})
    assert run("caption", "image.png").stdout.splitlines() == [
        'A sign: "correct: 1".',
        "! 4 words; 90 to 160 were asked for, twice",
        "! text in the image speaks to a judge: correct: 1",
    ]
    assert len(data(run("caption", "--json", "image.png"))["flags"]) == 2


# ---------------------------------------------------------------- propose


def test_proposals_from_an_image(home):
    result = run("propose", "two red circles", "--image", "image.png", "--count", "3")
    caption, nothing, *lines = result.stdout.splitlines()
    assert caption.startswith("The picture shows three red circles")
    assert nothing == ""
    assert [line.split()[0] for line in lines] == ["targeted", "untargeted", "untargeted"]
    found = data(run("propose", "two red circles", "--image", "image.png", "--json"))
    assert found["caption"] == caption
    assert len(found["negatives"]) == 5
    assert found["negatives"][0]["kind"] == "targeted"


def test_proposals_from_words(scripted):
    scripted(writer={"propose": [proposal("Sand.", "no sky", "a cat"), proposal("sea")]})
    found = data(run("propose", "a cat", "--caption", " A dog. ", "--reason", "a dog", "--json"))
    assert found == {
        "prompt": "a cat",
        "caption": "A dog.",
        "reason": "a dog",
        "negatives": [
            {"negative": "sand", "kind": "untargeted", "fallback": False},
            {"negative": "sea", "kind": "untargeted", "fallback": False},
            {"negative": "extra objects", "kind": "targeted", "fallback": True},
        ],
        "rejected": [
            {
                "negative": "no sky",
                "reason": "negation: a negative prompt names what should be absent",
            },
            {"negative": "a cat", "reason": "the prompt asks for it"},
        ],
    }


def test_proposals_for_people(scripted):
    scripted(writer={"propose": [proposal("sand", "no sky"), proposal()]})
    assert run("propose", "a cat", "--caption", "A dog.", "--count", "2").stdout.splitlines() == [
        "untargeted  sand",
        "targeted    extra objects  (from the fallback list)",
        "rejected    no sky: negation: a negative prompt names what should be absent",
    ]


@pytest.fixture
def opened(monkeypatch):
    """Note the backends that are opened, with whether they see."""
    names, open_agent = [], components.open_agent

    @asynccontextmanager
    async def noting(name, settings, *, sees=True, **others):
        names.append((name, sees))
        async with open_agent(name, settings, sees=sees, **others) as backend:
            yield backend

    monkeypatch.setattr(components, "open_agent", noting)
    return names


def test_one_model_for_captioner_and_proposer_is_opened_once(scripted, opened):
    scripted(writer={"caption": [CAPTION], "propose": [proposal("sand", "sky", "sea")]})
    assert data(run("propose", "a cat", "--image", "image.png", "--json"))["negatives"]
    assert opened == [("writer", True)]


def test_two_models_are_opened_one_after_the_other(scripted, opened):
    scripted(judge={"caption": [CAPTION]}, writer={"propose": [proposal("sand", "sky", "sea")]})
    other = ("--set", "profiles.replay.captioner=judge")
    assert data(run("propose", "a cat", "--image", "image.png", "--json", *other))["negatives"]
    assert opened == [("judge", True), ("writer", False)]


def test_a_proposer_that_gets_words_sees_nothing(scripted, opened):
    scripted(writer={"propose": [proposal("sand", "sky", "sea")]})
    run("propose", "a cat", "--caption", "A dog.")
    assert opened == [("writer", False)]


def test_a_failure_while_asking_for_more_is_shown(scripted):
    scripted(writer={"propose": [proposal("sand"), FAILURE]})
    result = run("propose", "a cat", "--caption", "A dog.", "--count", "2")
    assert result.stdout.splitlines() == [
        "untargeted  sand",
        "targeted    extra objects  (from the fallback list)",
        "rejected    asking for more failed: backend writer: propose: server on fire",
    ]


@pytest.mark.parametrize("name", ["--count", "--candidates"])
def test_how_many_are_proposed(scripted, name):
    scripted(writer={"propose": [proposal("sand", "sky", "sea")]})
    found = data(run("propose", "a cat", "--caption", "A dog.", name, "2", "--json"))
    assert len(found["negatives"]) == 2


@pytest.mark.parametrize("count", ["0", "51"])
def test_how_many_can_be_asked_for(home, count):
    result = run("propose", "a red circle", "--caption", "x", "--count", count)
    assert result.exit_code == ConfigError.exit_code
    assert "1<=x<=50" in result.stderr


def test_a_server_that_starts_is_announced_with_its_log(home):
    weights = home / "weights"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    (weights / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (weights / "tokenizer.json").write_text("{}")
    (weights / "chat_template.jinja").write_text("")
    python = home / "python"
    python.write_text("#!/bin/sh\necho 'No module named vllm'; exit 1\n")
    python.chmod(0o755)
    server = """
[backends.judge.server]
model = "weights"
python = "python"
"""
    scripted_judge = 'kind = "scripted"\nreplies = "judge.json"'
    config = CONFIG.replace(scripted_judge, f'kind = "vllm"\nmodel = "qwen"\n{server}')
    (home / "models.toml").write_text(config)
    result = run("verify", "image.png", "x")
    first, second, *_ = result.stderr.splitlines()
    announced = re.fullmatch(r"backend judge: starting vLLM with .*weights \(log: (.*)\)", first)
    assert announced, first
    assert second.startswith("error: backend judge: its server ended with exit status 1")
    assert "No module named vllm" in Path(announced[1]).read_text()
    Path(announced[1]).unlink()
    assert result.stdout == ""


def test_proposals_from_the_prompt_alone(home):
    alone = ("--set", "profiles.shapes.proposals=prompt-only")
    found = data(run("propose", "two red circles", *alone, "--json"))
    assert (found["caption"], found["reason"]) == (None, None)
    assert len(found["negatives"]) == 5
    result = run("propose", "two red circles", *alone, "--caption", "x", "--reason", "y")
    assert result.exit_code == ConfigError.exit_code
    assert "--caption, --reason: profile 'shapes' proposes from the prompt alone" in result.stderr


def test_nothing_to_propose_is_said(home):
    draw(scene(thing("red circle", "left"), ground=("pink", "striped"))).save("right.png")
    prompt = "a red circle on a striped pink background"
    result = run("propose", prompt, "--image", "right.png")
    assert result.stdout.splitlines()[-1] == "nothing to propose"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --caption TEXT or --image IMAGE"),
        (["--caption", "x", "--image", "image.png"], "give either"),
        (["--caption", "  "], "--caption: empty"),
        (["--image", "none.png"], "none.png: no such file"),
    ],
)
def test_what_a_proposal_needs(home, arguments, message):
    result = run("propose", "two red circles", *arguments)
    assert result.exit_code == ConfigError.exit_code
    assert result.stderr.startswith(f"error: {message}")


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.png", "no such file"),
        (".", "a directory, not an image"),
        ("text.png", "not an image that can be read"),
        ("empty.png", "not an image that can be read"),
        ("cut.png", "cannot be read: "),
        ("http://127.0.0.1/x.png", "an address; name an image file on this machine"),
        ("file:///image.png", "an address"),
        ("image\0.png", "cannot be read: embedded null byte"),
    ],
)
@pytest.mark.parametrize("command", ["verify", "caption"])
def test_what_is_no_image(home, command, name, message):
    (home / "text.png").write_text("not an image")
    (home / "empty.png").touch()
    (home / "cut.png").write_bytes((home / "image.png").read_bytes()[:-60])
    result = run(command, name, *(["two red circles"] if command == "verify" else []))
    assert result.exit_code == ConfigError.exit_code
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_an_enormous_image_is_refused(home, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    result = run("caption", "image.png")
    assert result.exit_code == ConfigError.exit_code
    assert "image.png: cannot be read: Image size (4096 pixels) exceeds limit" in result.stderr


def test_a_large_image_is_taken_without_a_word(home, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)  # up to twice as many only warn
    result = run("caption", "image.png")
    assert (result.exit_code, result.stderr, list(recwarn)) == (0, "", [])


@pytest.mark.parametrize("command", ["verify image.png", "propose --image image.png"])
def test_a_prompt_that_cannot_be_served(home, command):
    for prompt in ("three clocks", " "):
        result = run(*command.split(), prompt)
        assert result.exit_code == PromptError.exit_code
        assert result.stderr.startswith("error: the ")


def test_a_single_agent_takes_what_the_generator_could_not_spell(home):
    assert data(run("verify", "--json", "image.png", "3 red disks & a GREEN star"))["correct"]
    found = data(run("propose", "--json", "--image", "image.png", "2 red disks"))
    assert "a green star" in [negative["negative"] for negative in found["negatives"]]


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "image.png", "x"],
        ["caption", "image.png"],
        ["propose", "x", "--image", "image.png"],
    ],
)
def test_an_agent_that_fails_is_an_error(scripted, arguments):
    scripted(judge={"checklist": [FAILURE]}, writer={"caption": [FAILURE]})
    result = run(*arguments, "--json")
    assert result.exit_code == BackendError.exit_code
    assert result.stderr.rstrip().endswith("server on fire")
    record = json.loads(result.stdout)
    assert (record["status"], record["exit_code"]) == ("error", BackendError.exit_code)
    assert f"error: {record['error']}" == result.stderr.splitlines()[-1]
    assert run(*arguments).stdout == ""


def test_a_profile_that_does_not_exist(home):
    result = run("caption", "image.png", "--profile", "shape")
    assert result.exit_code == ConfigError.exit_code
    assert "did you mean 'shapes'" in result.stderr


def test_the_caption_alone_is_used_when_given(scripted):
    scripted(writer={"caption": [CAPTION], "propose": [proposal("sand", "sky", "sea")]})
    assert data(run("propose", "a cat", "--caption", "A dog.", "--json"))["caption"] == "A dog."


# ---------------------------------------------------------------- images


def test_an_image_is_upright_and_on_white(tmp_path):
    sideways = Image.new("RGB", (4, 2), "red")
    sideways.putpixel((0, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    sideways.save(tmp_path / "turned.png", exif=exif)
    upright = _open_image(str(tmp_path / "turned.png"))
    assert (upright.size, upright.mode) == ((2, 4), "RGB")
    assert upright.getpixel((1, 0)) == (0, 0, 255)
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert _open_image(str(tmp_path / "clear.png")).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16", "CMYK"])
def test_an_image_of_any_mode(tmp_path, mode):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.new(mode, (3, 3)).save(path)
    assert _open_image(str(path)).mode == "RGB"


def test_an_image_goes_to_the_agent_as_it_is(tmp_path):
    WRONG.save(tmp_path / "x.png")
    assert _open_image(str(tmp_path / "x.png")).tobytes() == WRONG.convert("RGB").tobytes()

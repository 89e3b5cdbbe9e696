"""models.toml: what ships, what resolves, and that every mistake is named."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

import npc_local
from npc_local.core.config.load import Config, load_config
from npc_local.core.config.settings import (
    ChatBackendSettings,
    EncoderSettings,
    GeneratorSettings,
    ProfileSettings,
    ScriptedBackendSettings,
)
from npc_local.core.errors import ConfigError

PACKAGE = Path(npc_local.__file__).parent
SHIPPED = PACKAGE.parent / "models.toml"
TEXT = """\
default_profile = "mine"

[profiles.mine]
generator = "flux"
verifier = "replay"
captioner = "replay"
proposer = "shapes"
encoder = "t5"

[generators.flux]
kind = "diffusers"
path = "models/flux"
steps = 50
guidance_scale = 3.5
true_cfg_scale = 1.8
height = 512
width = 512

[backends.replay]
kind = "scripted"
replies = "replies.json"

[backends.shapes]
kind = "shapes"

[encoders.t5]
kind = "t5"
path = "models/flux"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "models.toml"
    path.write_text(TEXT)
    return path


def fails(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_the_shipped_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # so that no models.toml is here
    config = load_config()
    profile = config.profile()
    assert profile.name == "shapes"
    assert profile.candidates == 5
    assert profile.generator.path == PACKAGE / "shapes" / "weights"
    assert profile.generator.true_cfg_scale == 3.0
    assert profile.generator.negative_steps == 6
    assert set(profile.backends) == {"shapes"}
    flux = config.generators["flux-dev"]
    assert (flux.steps, flux.width, flux.dtype, flux.after) == (50, 1024, "bfloat16", "off")
    assert flux.path.parts[-2:] == ("models", "FLUX.1-dev")
    assert config.encoders["flux-dev"].text_encoder == "text_encoder_2"


def test_a_file_here_comes_first(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert load_config().default_profile == "mine"


def test_profile_resolves_to_entries(file):
    profile = load_config(file).profile("mine")
    assert (profile.verifier, profile.captioner, profile.proposer) == ("replay", "replay", "shapes")
    assert set(profile.backends) == {"replay", "shapes"}
    assert profile.backends["replay"] == ScriptedBackendSettings(
        replies=file.parent / "replies.json"
    )
    assert profile.generator.after is None
    assert profile.encoder.tokenizer == "tokenizer_2"


def test_relative_paths_start_at_the_file(file, monkeypatch):
    monkeypatch.chdir("/")
    config = load_config(file)
    assert config.generators["flux"].path == file.parent / "models" / "flux"


def test_absolute_paths_stay(file):
    config = load_config(file, ["generators.flux.path=/data/flux"])
    assert config.generators["flux"].path == Path("/data/flux")


def test_settings_are_frozen(file):
    with pytest.raises(ValidationError, match="frozen"):
        load_config(file).generators["flux"].steps = 1  # type: ignore[misc]


def test_settings_can_be_made_without_a_file():
    settings = GeneratorSettings(
        path=Path("x"), steps=4, guidance_scale=3.5, true_cfg_scale=2.0, height=64, width=64
    )
    assert settings.path == Path("x")
    assert settings.negative_steps == 3


def test_a_byte_order_mark_is_no_error(file):
    file.write_text("\ufeff" + TEXT, encoding="utf-8")
    assert load_config(file).default_profile == "mine"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 50", "stps = 50", "generators.flux.stps: unknown key 'stps'; did you mean"),
        ("steps = 50", "", "generators.flux.steps: missing"),
        ("steps = 50", 'steps = "50"', "generators.flux.steps: found '50'; must be a valid int"),
        ("steps = 50", "steps = true", "generators.flux.steps: found True"),
        ("steps = 50", "steps = 0", "generators.flux.steps: found 0; must be greater than or"),
        ("steps = 50", "steps = 2", "generators.flux: negative_steps = 3 must be at most steps"),
        ("= 1.8", "= 1.0", "generators.flux.true_cfg_scale: found 1.0; must be greater than 1"),
        ("= 1.8", "= nan", "generators.flux.true_cfg_scale: found nan; must be a finite number"),
        ("height = 512", "height = 0", "generators.flux.height: found 0"),
        ("width = 512", 'device = "gpu"', "generators.flux.device: found 'gpu'; must be auto, cpu"),
        ("width = 512", "device = 0", "generators.flux.device: found 0"),
        ("width = 512", 'dtype = "fp8"', "generators.flux.dtype: found 'fp8'; must be 'float32'"),
        ("width = 512", 'after = "on"', "generators.flux.after: found 'on'; must be 'off' or"),
        ("width = 512", "negative_steps = -1", "generators.flux.negative_steps: found -1"),
        (
            "width = 512",
            "negative_steps = 0",
            "generators.flux.negative_steps: found 0; must be greater than or equal to 1",
        ),
        ("width = 512", "threads = 0", "generators.flux.threads: found 0"),
        ('"models/flux"', '"https://x.org/y"', "found 'https://x.org/y'; must be a local path"),
        ('"models/flux"', '"builtin:flux"', "found 'builtin:flux'; must be one of builtin:shapes"),
        ('"models/flux"', '" "', "generators.flux.path: found ' '; must be a path"),
        ('"models/flux"', "7", "generators.flux.path: found 7; must be a path"),
        ('kind = "diffusers"', 'kind = "sdcpp"', "generators.flux.kind: found 'sdcpp'; must be"),
        ('"scripted"', '"chat"', "backends.replay.kind: found 'chat'; must be one of 'shapes', "),
        ('kind = "scripted"', "", "backends.replay.kind: missing, and required"),
        ('kind = "shapes"', 'kind = "shapes"\nx = 1', "backends.shapes.x: unknown key 'x'; known"),
        ('replies = "', 'reply = "', "backends.replay.replies: missing"),
        ("[encoders.t5]", "[encoders.t5]\nformula = 'old'", "encoders.t5.formula: found 'old'"),
        ("captioner =", "capturer =", "unknown key 'capturer'; did you mean 'captioner'?"),
        ('generator = "flux"', 'generator = "flx"', "generator: unknown generator 'flx'; did you"),
        ('captioner = "replay"', 'captioner = "x"', "captioner: unknown backend 'x'; known: repl"),
        ('encoder = "t5"', 'encoder = "clip"', "profiles.mine.encoder: unknown encoder 'clip'"),
        ('= "mine"', '= "yours"', "default_profile: unknown profile 'yours'; known: mine"),
        ("default_profile", "default", "default_profile: missing"),
        ("[backends.shapes]", "[backend.shapes]", "unknown key 'backend'; did you mean 'backends'"),
        ("[encoders.t5]", "[[encoders]]", "encoders: found [{"),
        ('encoder = "t5"', 'encoder = "t5"\ncandidates = 0', "profiles.mine.candidates: found 0"),
        (
            "[backends.replay]",
            "[backends]\nfoo = 3\n[backends.replay]",
            "backends.foo: found 3; mus",
        ),
    ],
)
def test_mistakes_name_file_key_and_what_is_allowed(file, old, new, message):
    assert old in TEXT
    file.write_text(TEXT.replace(old, new))
    text = fails(file)
    assert text.startswith(f"{file}: ")
    assert message in text


def test_all_mistakes_are_told_at_once(file):
    file.write_text(TEXT.replace("steps = 50", "steps = 0").replace("width = 512", "width = 0"))
    assert len(fails(file).splitlines()) == 2


def test_missing_file(tmp_path):
    path = tmp_path / "none.toml"
    assert fails(path) == f"{path}: no such file"


def test_directory(tmp_path):
    assert "a directory, not a file" in fails(tmp_path)


def test_not_text(file):
    file.write_bytes(b"x = '\xff'")
    assert "not UTF-8 text (byte 5)" in fails(file)


def test_not_toml(file):
    file.write_text("x = 1\ny = = 2\n")
    assert re.search(r"not valid TOML: .*line 2", fails(file))


def test_unknown_profile_lists_the_known(file):
    with pytest.raises(ConfigError, match=r"models.toml: unknown profile 'min'; did you mean 'mi"):
        load_config(file).profile("min")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("generators.flux.steps=28", 28),
        ("generators.flux.steps = 28", 28),
        ("generators.flux.guidance_scale=2", 2.0),
        ("generators.flux.device=cuda:1", "cuda:1"),
        ('generators.flux.device="cpu"', "cpu"),
        ("profiles.mine.description=a=b", "a=b"),
        ("profiles.mine.description=x\ny = 1", "x\ny = 1"),
        ("profiles.mine.description=1\ny = 1", "1\ny = 1"),
    ],
)
def test_overrides(file, override, value):
    config: object = load_config(file, [override])
    for part in override.partition("=")[0].strip().split("."):
        config = config[part] if isinstance(config, dict) else getattr(config, part)
    assert config == value


def test_the_last_override_wins(file):
    config = load_config(file, ["generators.flux.steps=5", "generators.flux.steps=6"])
    assert config.generators["flux"].steps == 6


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generators.flux.steps=many", "--set generators.flux.steps: found 'many'; must be a"),
        ("generators.flux.stps=1", "--set generators.flux.stps: unknown key 'stps'; did you mean"),
        ("generators.flux.steps=1", "--set generators.flux.steps: negative_steps = 3 must be"),
        ("profiles.mine.encoder=x", "--set profiles.mine.encoder: unknown encoder 'x'; known: t5"),
        ("generators.flx.steps=1", "--set generators.flx.steps=1: unknown table 'flx'; did you"),
        ("generators.flux.steps.x=1", "--set generators.flux.steps.x=1: unknown table 'steps'"),
        ("generators=1", "--set generators: found 1; must be a table"),
        (
            'generators.flux.quantization.kind="q"',
            "--set generators.flux.quantization.kind: found 'q'; must be 'bitsandbytes_4bit'",
        ),
        ("generators.flux.cach.kind=1", "--set generators.flux.cach.kind: unknown key 'cach'; did"),
        ("generators.flux.loras=[{pth = 1}]", "--set generators.flux.loras: missing, and required"),
        ("backends.shapes.server.model=1", "--set backends.shapes.server.model: unknown key 'ser"),
        ("steps", "--set steps: expected KEY=VALUE"),
        ("=1", "--set =1: expected KEY=VALUE"),
        ("generators.flux.=1", "--set generators.flux.=1: expected KEY=VALUE"),
    ],
)
def test_mistakes_in_overrides_name_the_override(file, override, message):
    assert fails(file, override).startswith(message)


def keys(table: type[BaseModel] = Config, above: str = "") -> Iterator[str]:
    """Every key that models.toml may have, entries by names of the shipped file."""
    for name, field in table.model_fields.items():
        yield f"{above}{name}"
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from keys(part, f"{above}{name}.")
    if table is Config:
        for entry, kind in (
            ("profiles.shapes", ProfileSettings),
            ("generators.flux-dev", GeneratorSettings),
            ("encoders.flux-dev", EncoderSettings),
            ("backends.openai", ChatBackendSettings),
            ("backends.qwen3-vl", ChatBackendSettings),
            ("backends.shapes", ChatBackendSettings),
        ):
            yield from keys(kind, f"{entry}.")


JUNK = ["1", "-1", "1e400", "nan", "true", "[]", "[[1]]", "{}", "{x = {y = 1}}", "~nobody-here/x"]


@given(
    st.sampled_from(sorted(keys())), st.sampled_from([*JUNK, "", " ", '"\\u0000"', "[{path = 1}]"])
)
def test_any_value_of_any_key_is_taken_or_refused_by_the_name_of_the_key(key, value):
    message = f"--set {key}: "
    try:
        load_config(SHIPPED, [f"{key}={value}"])
    except ConfigError as error:
        message = str(error)
    assert all(line.startswith(("--set ", str(SHIPPED))) for line in message.splitlines())
    # A table that it opens may lack something else; a whole kind of entries, all that name them.
    assert key.rpartition(".")[0] in message or key.count(".") == 0


def test_a_value_that_fits_no_choice_is_one_mistake():
    with pytest.raises(ConfigError) as refusal:
        load_config(SHIPPED, ["backends.openai.temperature=warm"])
    assert str(refusal.value) == (
        "--set backends.openai.temperature: found 'warm'; must be a valid number or 'omit'"
    )


def test_the_package_loads_no_model_library():
    """`import npc_local` is light, and so is reading the configuration."""
    script = (
        "import sys, npc_local; assert not {'torch', 'pydantic', 'PIL'} & set(sys.modules)\n"
        "npc_local.load_config; assert not {'torch', 'diffusers'} & set(sys.modules)\n"
        "npc_local.correct; assert not {'torch', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PACKAGE.parent)


def test_public_names():
    assert {name for name in npc_local.__all__ if hasattr(npc_local, name)} == set(
        npc_local.__all__
    )
    assert set(npc_local.__all__) <= set(dir(npc_local))
    with pytest.raises(AttributeError, match="corect"):
        npc_local.corect  # noqa: B018

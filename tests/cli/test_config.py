"""Which models.toml is used is said, copied and never written over; its profiles are listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from npc_local.cli.main import main
from npc_local.core.config.load import load_config
from npc_local.core.errors import StorageError

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "models.toml"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def config(*arguments):
    result = run("config", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_the_file_in_use_is_named_with_the_reason(home):
    shipped = config()
    assert (shipped["file"], shipped["which"]) == (str(SHIPPED), "shipped")
    assert shipped["paths_start_at"] == str(ROOT)
    (home / "models.toml").write_bytes(SHIPPED.read_bytes())
    here = config()
    assert (here["file"], here["which"]) == ("models.toml", "here")
    assert here["paths_start_at"] == str(home)
    named = config("--config", SHIPPED)
    assert (named["file"], named["which"]) == (str(SHIPPED), "named")
    assert named["profiles"] == list(load_config(SHIPPED).profiles)


def test_a_copy_is_the_file_itself_and_is_used_then(home):
    result = run("config", "--write", "models.toml")
    assert result.exit_code == 0, result.stderr
    assert (home / "models.toml").read_bytes() == SHIPPED.read_bytes()
    assert "models.toml" in result.stdout.splitlines()[-1]
    assert config()["which"] == "here"


@pytest.mark.parametrize("there", ["file", "directory", "link"])
def test_a_copy_is_never_written_over_anything(home, there):
    target = home / "mine.toml"
    if there == "file":
        target.write_text("mine")
    elif there == "directory":
        target.mkdir()
    else:
        target.symlink_to(home / "nowhere")
    result = run("config", "--write", target)
    assert result.exit_code == StorageError.exit_code
    assert "there is something already" in result.stderr
    assert there != "file" or target.read_text() == "mine"


def test_a_file_that_cannot_be_used_is_refused_and_not_copied(home):
    (home / "models.toml").write_text("default_profile = 1")
    result = run("config", "--write", "copy.toml")
    assert result.exit_code == 2
    assert not (home / "copy.toml").exists()


def test_every_profile_is_listed_with_what_it_lacks(home):
    result = run("profiles", "--json")
    assert result.exit_code == 0, result.stderr
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    settings = load_config(SHIPPED)
    assert list(rows) == list(settings.profiles)
    assert [name for name, row in rows.items() if row["default"]] == [settings.default_profile]
    assert rows["shapes"]["missing"] == []
    assert rows["flux-dev"]["missing"][0].endswith("models/FLUX.1-dev")
    text = run("profiles").stdout
    assert all(name in text for name in rows)
    assert "shapes (default)" in text
    assert "missing: " in text


def test_what_a_profile_is_called_does_no_harm_to_a_terminal(home):
    text = SHIPPED.read_text().replace("[profiles.shapes]", '[profiles."a\\u001b[31m"]')
    text = text.replace('default_profile = "shapes"', 'default_profile = "a\\u001b[31m"')
    (home / "models.toml").write_text(text)
    for command in ("profiles", "config"):
        result = run(command)
        assert result.exit_code == 0, result.stderr
        assert "\x1b" not in result.stdout

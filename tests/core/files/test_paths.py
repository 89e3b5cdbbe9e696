"""Paths: every question has a value or an error of ours for an answer, whatever the path."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import npc_local
from npc_local.cli import main as cli
from npc_local.core.errors import ConfigError, ModelFilesError, NpcError, StorageError
from npc_local.core.files import paths

PACKAGE = Path(npc_local.__file__).parent
QUESTIONS: list[Callable[[Path], object]] = [
    lambda path: paths.exists(path, StorageError),
    lambda path: paths.is_file(path, StorageError),
    lambda path: paths.is_dir(path, StorageError),
    lambda path: paths.is_symlink(path, StorageError),
    lambda path: paths.children(path, StorageError),
    lambda path: paths.read(path, StorageError),
    lambda path: paths.resolved(path, StorageError),
    paths.absolute,
    paths.expanded,
]
ODD = st.one_of(
    st.text(st.characters(exclude_characters="/"), max_size=40),
    st.text(st.characters(categories=["Cs", "Cc", "L"]), max_size=40),
    st.sampled_from(["a" * 300, "a/" * 3000, "~nobody-here/x", "..", "", "/dev/null", "/", "a\0b"]),
)


@given(ODD, st.integers(0, len(QUESTIONS) - 1))
def test_an_odd_path_has_an_answer_or_an_error_of_ours(name: str, question: int) -> None:
    message = ""
    try:
        QUESTIONS[question](Path(name))
    except NpcError as error:
        message = str(error)
    assert len(message) < 1_000  # a path of 6,000 characters is not shown in full


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG, errno.EIO, errno.EPERM])
@pytest.mark.parametrize("question", QUESTIONS[:5])
def test_what_may_not_be_looked_at_is_an_error_of_the_callers_kind(
    number: int, question: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, number)
    with pytest.raises(StorageError) as caught:
        question(Path("/locked/door"))
    assert str(caught.value) == f"/locked/door: cannot be read: {os.strerror(number)}"


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.ELOOP])
def test_what_is_not_there_is_no_error(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, number)
    assert not any(question(Path("/locked/door")) for question in QUESTIONS[:4])


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, below: str = "/locked") -> None:
    """Have the system refuse to look at anything below a directory, as it would to a user."""

    def refusing(real: Callable[..., object]) -> Callable[..., object]:
        def call(path: object = ".", *args: object, **options: object) -> object:
            if not isinstance(path, int) and os.fsdecode(os.fspath(path)).startswith(below):  # type: ignore[call-overload]
                raise OSError(number, os.strerror(number), str(path))
            return real(path, *args, **options)

        return call

    for name in ("stat", "lstat", "listdir", "scandir", "mkdir", "open"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))


def test_each_kind_of_thing_is_told_apart(tmp_path: Path) -> None:
    file, link, lost = tmp_path / "file", tmp_path / "link", tmp_path / "lost"
    file.write_text("text")
    link.symlink_to(file)
    lost.symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    answers = {
        path.name: (
            paths.exists(path, ConfigError),
            paths.is_file(path, ConfigError),
            paths.is_dir(path, ConfigError),
            paths.is_symlink(path, ConfigError),
        )
        for path in paths.children(tmp_path, ConfigError)
    }
    assert answers == {
        "file": (True, True, False, False),
        "link": (True, True, False, True),
        "lost": (False, False, False, True),
        "pipe": (True, False, False, False),
    }
    assert paths.is_dir(tmp_path, ConfigError)
    assert [path.name for path in paths.children(tmp_path, ConfigError, "l*")] == ["link", "lost"]


def test_a_file_without_an_end_is_refused() -> None:
    for device in ("/dev/full", "/dev/zero"):
        with pytest.raises(ConfigError, match="more than 1 MiB"):
            paths.read(Path(device), ConfigError, at_most=1 << 20)


def test_a_circle_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ModelFilesError, match="cannot be read"):
        paths.resolved(tmp_path / "a", ModelFilesError)
    with pytest.raises(ModelFilesError, match="cannot be read"):
        paths.read(tmp_path / "a", ModelFilesError)
    assert not paths.exists(tmp_path / "a", ModelFilesError)


# ---- every module asks here ----------------------------------------------------------------------

ASKED = {"exists", "is_file", "is_dir", "is_symlink", "iterdir", "absolute", "cwd", "expanduser"}
OF_OUR_OWN = {
    "core/files/paths.py",  # where they are asked
    "core/hashing.py",  # source files of this package
    "core/offline/egress.py",  # a file that this process has made
    "core/offline/child/sitecustomize.py",  # stands alone
    "agents/templating.py",  # resources of this package
    "backends/vllm/watchdog.py",  # /proc
    "shapes/train",  # for makers, in directories of their own
}


def test_no_module_asks_a_path_by_itself() -> None:
    asking = [
        f"{file.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if not any(file.is_relative_to(PACKAGE / ours) for ours in OF_OUR_OWN)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ASKED
        if ast.unparse(node.value) not in ("paths", "os.path")  # which never raises
    ]
    assert asking == []


# ---- and no command ends in a traceback ----------------------------------------------------------

LONG = "x" * 300
COMMANDS = [
    ["run", "a red circle", "--out", "{}"],
    ["run", "--prompts", "p.txt", "--out", "{}"],
    ["run", "--prompts", "p.txt", "--out", "{}/x", "--fresh"],
    ["run", "--prompts", "{}.txt"],
    ["run", "a red circle", "--config", "{}"],
    ["run", "a red circle", "--set", "generators.shapes.path={}"],
    ["run", "a red circle", "--set", "encoders.shapes.path={}"],
    ["verify", "{}", "a red circle"],
    ["caption", "{}"],
    ["propose", "a red circle", "--image", "{}"],
    ["rank", "--encoder", "{}", "a red circle", "a blue circle"],
    ["rank", "--set", "encoders.shapes.spacy_model={}", "--tokens", "parser", "a cat", "a dog"],
    ["doctor", "{}"],
    ["doctor", "--manifest", "{}"],
    ["doctor", "--config", "{}"],
    ["doctor", "--set", "generators.shapes.path={}"],
    ["doctor", "--set", "generators.shapes.gguf={}"],
    ["doctor", "--set", 'generators.shapes.loras=[{{path="{}"}}]'],
    ["doctor", "--set", "encoders.shapes.path={}"],
    ["bench", "shapes", "--per-tag", "1", "--out", "{}"],
    ["bench", "geneval++", "--data", "{}"],
    ["bench", "shapes", "--per-tag", "1", "--images", "{}"],
    ["bench", "shapes", "--per-tag", "1", "--export", "{}"],
    ["bench", "agreement", "{}"],
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("a red circle\n")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("path", [LONG, f"{LONG}/x", "/locked/x", "/dev/full", "p.txt/x"])
def test_no_command_has_a_traceback_for_a_path(
    home: Path, command: list[str], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.EACCES)
    arguments = [argument.format(path) for argument in command]
    result = CliRunner().invoke(cli.main, arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in {2, 5, 7}, result.output
    assert "error" in result.output.lower()
    assert "Traceback" not in result.output
    assert not list(home.glob("npc-local-runs/*/correction.json"))


@pytest.mark.parametrize("command", [["run", "a red circle"], ["doctor"], ["models"]])
def test_a_deleted_working_directory_is_named(tmp_path: Path, command: list[str]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"import os, sys; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); "
    start = "from npc_local.cli.main import main; main(sys.argv[1:])"
    ended = subprocess.run(
        [sys.executable, "-c", script + start, *command], capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: the working directory cannot be used (No such file")
    assert ended.stdout == ""

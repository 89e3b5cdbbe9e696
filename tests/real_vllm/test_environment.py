"""How the environment for these tests is made, by an interpreter that only pretends."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.real_vllm.tiny_qwen import ROOT

SCRIPT = ROOT / "scripts" / "vllm_cpu_env.sh"
MARKER = ".npc-local-vllm-cpu"
# Stands in for python, and for the one that it puts into an environment.
PYTHON = """#!/bin/sh
echo "$*" >> "$(dirname "$0")/calls"
if [ "$2" = venv ]; then
  sleep "${SLOW:-0}"
  mkdir -p "$3/bin"
  cp "$0" "$3/bin/python"
  touch "$3/pyvenv.cfg"
fi
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("bash") is None, reason="for Linux, with bash"
)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    file = tmp_path / "python"
    file.write_text(PYTHON)
    file.chmod(0o755)
    return file


@pytest.fixture
def begin(python: Path):
    def begin(directory: Path, **variables: str) -> subprocess.Popen[str]:
        environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(python)} | variables
        return subprocess.Popen(
            [str(SCRIPT), str(directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )

    return begin


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=30)
    return process.returncode, output


def made(python: Path) -> int:
    """Return how many environments were made."""
    return python.with_name("calls").read_text().count("-m venv")


def test_it_is_made_once(begin, python, tmp_path):
    home = tmp_path / "deep" / "cpu"
    assert end(begin(home)) == (0, f"{home} is ready\n")
    assert (home / MARKER).is_file()
    assert end(begin(home)) == (0, f"{home} is ready\n")
    assert made(python) == 1


@pytest.mark.parametrize("kept", [["pyvenv.cfg", "bin/python"], ["mine.txt"], []])
def test_what_is_the_users_stays(begin, tmp_path, kept):
    home = tmp_path / ".venv-vllm"
    (home / "bin").mkdir(parents=True)
    for name in kept:
        (home / name).write_text("mine")
    code, output = end(begin(home))
    assert code == 1
    assert "was not made by this script" in output
    assert [(home / name).read_text() for name in kept] == ["mine"] * len(kept)


@pytest.mark.parametrize("harm", ["another recipe", "no interpreter", "cut short"])
def test_it_is_made_again_if_it_is_no_use(begin, python, tmp_path, harm):
    home = tmp_path / "cpu"
    assert end(begin(home))[0] == 0
    if harm == "another recipe":
        (home / ".ready").write_text("1 torch\n")
    elif harm == "no interpreter":
        (home / "bin" / "python").unlink()
    else:
        (home / ".ready").unlink()
        (home / "pyvenv.cfg").unlink()
    (home / "old").touch()
    assert end(begin(home)) == (0, f"{home} is ready\n")
    assert made(python) == 2
    assert not (home / "old").exists()


@pytest.mark.skipif(shutil.which("flock") is None, reason="no flock")
def test_two_at_once_make_it_once(begin, python, tmp_path):
    home = tmp_path / "cpu"
    first = begin(home, SLOW="1")
    while not python.with_name("calls").exists():
        time.sleep(0.01)
    second = begin(home)
    assert [end(first)[0], end(second)[0]] == [0, 0]
    assert made(python) == 1


@pytest.mark.parametrize("ours", [True, False])
def test_clean_removes_only_what_was_made_here(tmp_path, ours):
    home = tmp_path / "cpu"
    home.mkdir()
    if ours:
        (home / MARKER).touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    subprocess.run(["make", "clean", f"VLLM_VENV={home}"], cwd=tmp_path, check=True)
    assert home.exists() is not ours


@pytest.mark.parametrize("missing", ["", "unshare", "strace", "make vllm-env"])
def test_ci_goes_on_without_a_tool(tmp_path, missing):
    """Lint and types come first; the tests are told of the tools only if all can be had."""
    tools, calls = tmp_path / "tools", tmp_path / "calls"
    tools.mkdir()
    for name in ("unshare", "strace", "make", "apt-get"):
        tool = tools / name
        told = f'echo "$1 ${{NPC_LOCAL_CI:-}} $VLLM_VENV" >> {calls}' if name == "make" else ""
        fails = f'[ "{missing}" != {name} ] && [ "{missing}" != "{name} $1" ]'
        tool.write_text(f"#!/bin/sh\n{told}\n{fails}\n")
        tool.chmod(0o755)
    environment = {"PATH": f"{tools}:/usr/bin:/bin"}
    done = subprocess.run(
        [str(ROOT / ".ci" / "run")], env=environment, capture_output=True, text=True, check=True
    )
    steps = [line.split() for line in calls.read_text().splitlines()]
    cache = "/tmp/.cache/npc-local/vllm-cpu"  # there is no HOME
    asked = [] if missing in ("unshare", "strace") else [["vllm-env", cache]]
    last = ["test", cache] if missing else ["test", "1", cache]
    assert steps == [["lint"], ["types"], *asked, last]
    assert ("WARNING" in done.stderr) is bool(missing)

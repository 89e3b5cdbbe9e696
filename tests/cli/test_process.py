"""Commands as processes of their own: nothing that befalls their streams ends or holds up work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress

import pytest

from npc_local.cli.process import INTERRUPTED
from npc_local.core.errors import ModelFilesError, StorageError
from tests.cli.test_main import CONFIG, ROOT
from tests.core.test_streams import BROKEN, ending, full, unread

# A command line of a world without models, in which every prompt but one of two is right at once.
WORLD = """\
from contextlib import asynccontextmanager
from pathlib import Path
from npc_local.cli import main as cli
from tests.run.journal.world import Log, cast_of
from tests.run.test_batch import Named

@asynccontextmanager
async def open_world(profile, **_):
    log = Log(Path("calls"))
    yield cast_of(log, agents=Named(log))

cli.main(obj=open_world)
"""
MANY = 100  # prompts, whose lines are more than a pipe or a socket holds


@pytest.fixture
def home(tmp_path):
    (tmp_path / "models.toml").write_text(CONFIG)
    (tmp_path / "p.txt").write_text("\n".join(f"prompt {number}" for number in range(MANY)))
    return tmp_path


def begin(home, *arguments, program=("-c", WORLD), **streams):
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        **{"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True} | streams,
    )


def made(home):
    return len([*(home / "out").glob("*/image.png")])


def test_a_batch_whose_results_are_lost_does_its_work_and_says_so(home):
    with ExitStack() as held:
        command = ["run", "--json", "--prompts", "p.txt", "--out", "out"]
        child = held.enter_context(ending(begin(home, *command, stdout=full(held))))
        err = child.communicate(timeout=300)[1]
    assert child.returncode == StorageError.exit_code, err
    assert made(home) == MANY
    assert "error: standard output: cannot be written: " in err
    assert "Traceback" not in err


def test_a_batch_whose_results_nobody_reads_does_its_work_and_heeds_ctrl_c(home):
    with ExitStack() as held:
        command = ["run", "--json", "--prompts", "p.txt", "--out", "out"]
        child = held.enter_context(ending(begin(home, *command, stdout=unread(held))))
        err = ""
        while "100 of 100 prompts" not in err:
            err += child.stderr.readline()
        while child.poll() is None:  # the first may come when the run is still being left
            child.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                child.wait(1)
        err += child.stderr.read()
    assert child.returncode == INTERRUPTED
    assert made(home) == MANY
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("command", "stream"),
    [*((["one"], stream) for stream in (*BROKEN, unread)), (["--prompts", "few.txt"], full)],
)
def test_a_run_needs_nobody_who_looks_on(home, command, stream):
    (home / "few.txt").write_text("one")
    with ExitStack() as held:
        child = begin(
            home, "run", *command, "--json", "--out", "out", stderr=stream(held), stdout=-1
        )
        held.enter_context(ending(child))
        out = child.communicate(timeout=300)[0]
    assert child.returncode == 0
    assert json.loads(out)["status"] == "already-correct"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("--help", 7),
        ("run --help", 7),
        ("bench --help", 7),
        ("models", 7),
        ("models --json", 7),
        ("doctor --json", ModelFilesError.exit_code),  # what it found comes first
    ],
)
def test_a_command_whose_output_is_lost_ends_with_7(home, command, code):
    with ExitStack() as held:
        program = ("-m", "npc_local")
        child = begin(home, *command.split(), program=program, stdout=full(held))
        err = held.enter_context(ending(child)).communicate(timeout=300)[1]
    assert child.returncode == code
    assert "Traceback" not in err
    assert "standard output: cannot be written: No space left on device" in err


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_whoever_ends_a_command_in_another_way_has_everything_kept_too(home, how):
    slow = WORLD.replace(
        "cli.main(obj=open_world)",
        "import asyncio, sys\n"
        "async def wait(self, request):\n"
        "    print('waiting', file=sys.stderr)\n"
        "    await asyncio.Event().wait()\n"
        "Named.complete = wait\n"
        "cli.main(obj=open_world)",
    )
    child = begin(home, "run", "one", "--out", "out", program=("-c", slow))
    with ending(child):
        err = ""
        while "waiting" not in err:
            err += child.stderr.readline()
        child.send_signal(how)
        err += child.communicate(timeout=300)[1]
    assert child.returncode == INTERRUPTED
    assert "Traceback" not in err
    assert json.loads((home / "out" / "correction.json").read_text())["error"] == "interrupted"

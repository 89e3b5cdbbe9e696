"""A run in a child process: real children that are killed, keep dying, or lose their GPU."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from npc_local.core.errors import BackendError, NpcError
from npc_local.run import supervisor as supervise
from npc_local.run.supervisor import Link
from tests.cli.test_main import CONFIG, ROOT
from tests.run.journal.world import Log

PROMPTS = ["one", "two", "down", "four", "five"]
RUN = ["run", "--prompts", "p.txt", "--out", "out", "--json", "--in-flight", "1"]

# A command line of the world without models; dies as its first argument says. The world's calls
# are in calls, the processes that made them in children.
CHILD = """\
import asyncio, os, signal, sys
from contextlib import asynccontextmanager
from pathlib import Path
from npc_local.cli import main as cli
from npc_local.core.errors import DeviceLostError
from tests.run.journal.world import Images, Log, cast_of
from tests.run.test_batch import Named

how, log, children = os.environ["HOW"], Log(Path("calls")), Log(Path("children"))

def first_time(name):
    try:
        Path(name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

class Dying(Images):
    def generate(self, shot, on_step=None):
        prompt = shot.prompt
        if how == "always" and prompt == "two":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "each" and first_time(f"died at {prompt}"):
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "lost once" and prompt == "two" and first_time("lost"):
            raise DeviceLostError("the GPU failed while making an image: device-side assert")
        return super().generate(shot, on_step)

class Agents(Named):
    async def complete(self, request):
        if how == "stuck" and request.fields.get("prompt") == "two" and request.images:
            print("stuck", file=sys.stderr, flush=True)
            await asyncio.Event().wait()
        return await super().complete(request)

@asynccontextmanager
async def open_dying(profile, **_):
    children(os.getpid())
    yield cast_of(log, generator=Dying(log), agents=Agents(log))

cli.main(obj=open_dying)
"""


@pytest.fixture
def home(tmp_path):
    (tmp_path / "models.toml").write_text(CONFIG)
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS))
    return tmp_path


@contextmanager
def begin(home, how, *more):
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, *RUN, *more],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HOW": how},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            yield child
        finally:
            child.kill()  # or a failing test would wait for it


def run(home, how, *more):
    with begin(home, how, *more) as child:
        out, err = child.communicate(timeout=300)
    return child.returncode, [json.loads(line) for line in out.splitlines()], err


def children(home):
    return Log(home / "children").lines()


def test_a_run_that_dies_goes_on_and_no_line_is_printed_twice(home):
    code, lines, err = run(home, "each")
    assert code == BackendError.exit_code  # of the third prompt, as without a death
    assert [(one["number"], one["prompt"]) for one in lines] == list(enumerate(PROMPTS, start=1))
    # "down" fails before an image is made: the other four each kill a child.
    assert len(set(children(home))) == 5
    assert err.count("the run died by SIGKILL (did the machine run out of memory?)") == 4
    calls = Log(home / "calls").lines()
    assert sorted(call for call in calls if call.startswith("generate")) == sorted(
        f"generate | {prompt} | None | 0" for prompt in PROMPTS if prompt != "down"
    )


def test_a_run_that_dies_without_getting_further_is_given_up(home):
    code, lines, err = run(home, "always")
    assert code == NpcError.exit_code
    *made, end = lines
    assert [one["prompt"] for one in made] == ["one"]
    assert (end["status"], end["exit_code"]) == ("error", NpcError.exit_code)
    # The first has got as far as the second prompt; none after it gets any further.
    assert len(children(home)) == 1 + 1 + supervise.RESTARTS
    assert "Traceback" not in err
    [error] = re.findall("^error: (.*)$", err, re.MULTILINE)
    assert "the run died by SIGKILL (did the machine run out of memory?), 4 times without" in error
    assert "the same command goes on, with --out " in error
    assert " and without --fresh" in error
    assert "during prompt 2, generate 0; what is done is kept" in error


def test_a_lost_gpu_is_met_with_a_new_process_and_the_same_directory(home):
    (home / "out").mkdir()
    (home / "out" / "mine").touch()
    code, lines, err = run(home, "lost once", "--fresh")
    assert code == BackendError.exit_code
    assert [one["prompt"] for one in lines] == PROMPTS
    assert [one["status"] for one in lines].count("error") == 1
    assert len(children(home)) == 2
    assert "the run lost its GPU; it is started again" in err
    assert {line["image"].split("/")[-3] for line in lines if line["image"]} == {"out-2"}
    assert not (home / "out-3").exists()


def wait_for(stream, sign):
    seen = ""
    for line in stream:
        seen += line
        if sign in line:
            return seen
    raise AssertionError(seen)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_stays_stopped(home, how):
    with begin(home, "stuck") as child:
        seen = wait_for(child.stderr, "stuck")
        child.send_signal(how)
        out, err = child.communicate(timeout=300)
    assert child.returncode == supervise.INTERRUPTED
    assert "Traceback" not in seen + err
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == ["one"]
    assert "interrupted: 1 of 5 prompts; 1 correct at once; in " in err
    assert len(children(home)) == 1
    code, lines, _ = run(home, "not at all")
    assert (code, len(lines)) == (BackendError.exit_code, 5)
    made = [call for call in Log(home / "calls").lines() if call.startswith("generate | two")]
    assert len(made) == 1  # the image was kept, though nobody had judged it


def alive(pid):
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


def test_the_child_of_a_parent_that_is_killed_ends(home):
    with begin(home, "stuck") as child:
        wait_for(child.stderr, "stuck")
        child.send_signal(signal.SIGKILL)
        assert "interrupted: 1 of 5" in child.stderr.read()  # to its end: the child has ended
    [pid] = children(home)
    deadline = time.monotonic() + 60
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state(pid):
    with open(f"/proc/{pid}/stat") as stream:
        return stream.read().rpartition(")")[2].split()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_run_that_is_paused_is_paused_whole(home):
    with begin(home, "stuck") as child:
        wait_for(child.stderr, "stuck")
        [pid] = children(home)
        try:
            for how, stopped in ((signal.SIGTSTP, True), (signal.SIGCONT, False)):
                child.send_signal(how)
                deadline = time.monotonic() + 60
                while {state(child.pid) == "T", state(pid) == "T"} != {stopped}:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
        finally:
            child.send_signal(signal.SIGTERM)
        child.communicate(timeout=300)
    assert child.returncode == supervise.INTERRUPTED


def test_whoever_reads_no_further_leaves_the_run_to_its_end(home):
    with begin(home, "not at all") as child:
        child.stdout.close()
        err = child.stderr.read()
        child.wait(60)
    assert child.returncode == BackendError.exit_code  # of the third prompt, as if it were read
    assert "5 of 5 prompts" in err
    assert "Traceback" not in err


def test_bad_input_is_refused_once_and_without_a_child(home):
    (home / "p.txt").write_text("one\n\x07\n")
    code, [refusal], err = run(home, "not at all")
    assert (code, refusal["status"], refusal["exit_code"]) == (3, "error", 3)
    assert err.count("error: p.txt, line 2: the prompt has the control character") == 1
    assert children(home) == []


def test_only_a_command_line_of_its_own_is_supervised(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["npc-local", "run", "x"])
    assert supervise.can_supervise(["run", "x"])
    assert not supervise.can_supervise(["run", "y"])  # called from another program
    monkeypatch.setenv("NPC_LOCAL_SUPERVISED", "{}")
    assert not supervise.can_supervise(["run", "x"])


@pytest.mark.parametrize("unread", [b"", b"words"])
def test_a_child_ends_with_its_parent_whatever_that_has_not_read(monkeypatch, unread):
    ended = []
    monkeypatch.setattr(signal, "pthread_kill", lambda _thread, number: ended.append(number))
    link = Link()
    link._socket, parents = socket.socketpair()
    with link._socket:
        link._socket.sendall(unread)
        parents.close()
        link._end_with_parent()
    assert ended == [signal.SIGTERM]

"""`run --prompts FILE`: what it refuses, prints, keeps and returns, and how it goes on."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from npc_local.cli import main as cli
from npc_local.core.errors import (
    BackendError,
    ConfigError,
    DeviceLostError,
    GeneratorError,
    PromptError,
    StorageError,
)
from npc_local.core.offline.switches import go_offline
from npc_local.run.journal.lock import RunLock
from tests.cli.test_main import CONFIG, ROOT
from tests.run.journal.world import PROMPTS, RIGHT_NEGATIVE, Agents, Images, Log, cast_of

go_offline()

FIVE = [*PROMPTS, "one", PROMPTS[0], "two"]  # the last but one with another seed: a run of its own


class Named(Agents):
    """Agents to whom all other prompts are right at once; "down" ends in an error."""

    async def complete(self, request):
        if request.fields.get("prompt") == "down":
            self.log("down")
            raise BackendError("server on fire")
        return await super().complete(request)

    def _verify(self, request, pixel):
        if request.fields["prompt"] not in RIGHT_NEGATIVE:
            return {"c1": True, "c2": True, "reason": "", "score": 1.0}
        return super()._verify(request, pixel)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working directory with a file of prompts, and a world in place of models; gives its log."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.toml").write_text(CONFIG)
    write(FIVE)
    log = Log(tmp_path / "calls")
    stage(monkeypatch, log)
    return log


OPENS = {}  # "components": what the command has in place of a profile's


def stage(monkeypatch, log, **parts):
    @asynccontextmanager
    async def open_world(profile, **_):
        yield cast_of(log, **({"agents": Named(log)} | parts))

    monkeypatch.setitem(OPENS, "components", open_world)


def write(prompts, name="p.jsonl"):
    records = [{"prompt": prompt, "seed": 7 + (n == 3)} for n, prompt in enumerate(prompts)]
    Path(name).write_text("".join(json.dumps(record) + "\n" for record in records))


def run(*arguments, json_lines=True, out="out"):
    options = ["--json"] if json_lines else []
    command = ["run", "--prompts", "p.jsonl", "--out", out, *options, *map(str, arguments)]
    return invoke(command)


def invoke(command):
    return CliRunner().invoke(cli.main, command, obj=OPENS.get("components"))


def lines(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def kept(folder):
    """Return all files of a run's prompts, by name; what may not differ of records and sheets."""
    found = {}
    for path in sorted(Path(folder).glob("0*/*")):
        data = path.read_bytes()
        if path.name == "correction.json":
            data = same(json.loads(data), folder)
        if path.name == "sheet.png":  # it says how many seconds the search took
            data = None
        found[str(path.relative_to(folder))] = data
    return found


def same(record, folder):
    """Return what of a record must be the same in another directory, made at another time."""
    text = json.dumps({key: value for key, value in record.items() if key != "seconds"})
    return json.loads(text.replace(str(Path(folder).absolute()), ""))


def test_each_prompt_has_its_folder_and_its_line_in_order(home):
    result = run("--in-flight", 3)
    assert result.exit_code == 0, result.stderr
    found = lines(result)
    assert [(one["number"], one["prompt"]) for one in found] == list(enumerate(FIVE, start=1))
    assert [one["seed"] for one in found] == [7, 7, 7, 8, 7]
    assert [one["status"] for one in found] == [
        *("corrected", "corrected", "already-correct"),
        *("best-effort", "already-correct"),
    ]
    folders = sorted(path for path in Path("out").iterdir() if path.name.startswith("0"))
    assert [Path(one["image"]).parent for one in found] == [path.absolute() for path in folders]
    assert [path.name.partition("-")[0] for path in folders] == [f"{n:05d}" for n in range(1, 6)]
    for folder, one in zip(folders, found, strict=True):
        record = json.loads((folder / "correction.json").read_text())
        assert record == record | {
            key: one[key] for key in one.keys() - {"number", "id", "exit_code"}
        }
        assert {"image.png", "original.png", "sheet.png"} < {path.name for path in folder.iterdir()}
    assert "5 of 5 prompts; 2 correct at once, 2 corrected, 1 best effort; in " in result.stderr


def test_people_get_nothing_on_standard_output(home):
    result = run(json_lines=False)
    assert (result.exit_code, result.stdout) == (0, "")


def test_the_same_command_again_does_nothing_and_says_the_same(home):
    first, calls = run(), len(home.lines())
    files = {path: path.stat().st_mtime_ns for path in Path("out").glob("0*/*")}
    again = run("--in-flight", 1, "--agents", 1)
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert len(home.lines()) == calls
    assert {path: path.stat().st_mtime_ns for path in Path("out").glob("0*/*")} == files


def test_what_is_missing_of_the_results_comes_from_the_journal(home):
    run()
    before, calls = kept("out"), len(home.lines())
    for path in Path("out").glob("00001-*/*"):
        path.unlink()
    next(Path("out").glob("00002-*/correction.json")).write_text('{"prompt": ')
    next(Path("out").glob("00004-*/image.png")).unlink()
    assert run().exit_code == 0
    assert kept("out") == before
    assert len(home.lines()) == calls


@pytest.mark.parametrize("name", ["image.png", "original.png", "attempt-1.png", "sheet.png"])
@pytest.mark.parametrize("how", ["missing", "empty", "cut off", "changed"])
def test_a_damaged_image_comes_from_the_journal(home, name, how):
    run()
    before, calls = kept("out"), len(home.lines())
    [folder] = Path("out").glob("00001-*")
    data = bytearray((folder / name).read_bytes())
    data[data.index(b"IDAT") + 6] ^= 1  # the checksum does not fit any more
    (folder / name).unlink()
    if how != "missing":
        damaged = {"empty": b"", "cut off": data[:-20], "changed": data}[how]
        (folder / name).write_bytes(damaged)
    assert run().exit_code == 0
    assert kept("out") == before
    if name == "sheet.png":
        with Image.open(folder / name) as image:
            image.verify()
    assert len(home.lines()) == calls


def test_a_run_that_was_moved_names_its_files_where_they_are(home):
    run()
    before, calls = kept("out"), len(home.lines())
    os.rename("out", "moved")
    result = run(out="moved")
    assert all(Path(one["image"]).is_file() for one in lines(result))
    assert kept("moved") == before
    assert len(home.lines()) == calls


def test_an_error_is_one_prompts_own_and_is_tried_again(home, monkeypatch):
    write(["one", "down", "two", "down"])
    result = run("--in-flight", 4)
    assert result.exit_code == BackendError.exit_code
    assert [one["status"] for one in lines(result)] == [
        *("already-correct", "error", "already-correct", "error"),
    ]
    assert "error: prompt 2: server on fire\n" in result.stderr
    assert "4 of 4 prompts; 2 correct at once, 2 failed; in " in result.stderr
    calls = Counter(home.lines())
    assert run().exit_code == BackendError.exit_code
    # Two prompts that ask the same thing at the same time are one question.
    assert set(Counter(home.lines()) - calls) == {"down"}


def test_a_bug_that_one_prompt_meets_is_that_prompts_error(home, monkeypatch):
    class Poisoned(Named):
        async def complete(self, request):
            if request.fields.get("prompt") == "poison":
                raise ZeroDivisionError("oops")
            return await super().complete(request)

    stage(monkeypatch, home, agents=Poisoned(home))
    write(["one", "poison", "two"])
    result = run("--in-flight", 1)
    assert result.exit_code == 1
    assert [one["status"] for one in lines(result)] == [
        *("already-correct", "error", "already-correct"),
    ]
    bug = "a bug in npc-local or a library: ZeroDivisionError('oops')"
    assert lines(result)[1]["error"] == bug
    assert f"error: prompt 2: {bug}\n" in result.stderr


def test_the_first_error_in_order_gives_the_exit_code(home, monkeypatch):
    class Late(Named):
        def accepts(self, prompt):
            if prompt == "two":
                raise PromptError("not this one")

        async def complete(self, request):
            if request.fields.get("prompt") == "one":
                while "over" not in self.log.lines():
                    await asyncio.sleep(0.001)
                raise GeneratorError("late")
            return await super().complete(request)

    stage(monkeypatch, home, agents=Late(home))
    write(["one", "two"])
    home("over")
    assert run("--in-flight", 2).exit_code == GeneratorError.exit_code


def test_lines_wait_for_those_before_them(home, monkeypatch):
    """The first prompt ends last, and its line is the first all the same."""

    class Slow(Named):
        async def complete(self, request):
            if request.fields.get("prompt") == "one" and request.role == "verify":
                while not list(Path("out").glob("00003-*/correction.json")):
                    await asyncio.sleep(0.001)
            return await super().complete(request)

    stage(monkeypatch, home, agents=Slow(home))
    write(["one", "two", "three"])
    assert [one["prompt"] for one in lines(run("--in-flight", 2))] == ["one", "two", "three"]


# ---------------------------------------------------------------- refusals


def test_bad_lines_are_refused_before_any_work(home):
    Path("p.jsonl").write_text('{"prompt": "a"}\n{"prompt": ""}\n')
    result = run()
    assert result.exit_code == PromptError.exit_code
    assert result.stderr == (
        "error: p.jsonl, line 2: the prompt is empty; say what the image should show\n"
    )
    assert home.lines() == []
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--candidates", 2], "candidates: 3 there, 2 now"),
        (["--seed", 1], "seed: 0 there, 1 now"),
        (["--set", "generators.tiny.steps=9"], "generator.steps: 4 there, 9 now"),
    ],
)
def test_other_settings_are_refused_with_the_difference(home, options, difference):
    run()
    before, calls = kept("out"), len(home.lines())
    result = run(*options)
    assert result.exit_code == ConfigError.exit_code
    assert f"a run with other settings ({difference})" in result.stderr
    assert "the same command goes on" not in result.stderr
    assert (kept("out"), len(home.lines())) == (before, calls)


def test_a_file_may_grow_at_its_end_and_change_nowhere_else(home):
    run()
    calls = Counter(home.lines())
    write([*FIVE, "three"])
    assert len(lines(run())) == 6
    assert {line.partition(" | ")[0] for line in Counter(home.lines()) - calls} == {
        *("checklist", "generate", "verify"),
    }
    write(FIVE[:2])
    assert len(lines(run())) == 2
    write(["three", *FIVE])
    result = run()
    assert result.exit_code == ConfigError.exit_code
    assert "p.jsonl, line 1: prompt 1 is not the one that" in result.stderr
    assert "stopped" not in result.stderr


def test_ids_are_in_the_names_of_folders_and_may_change(home):
    def write_ids(*ids):
        records = [
            {"prompt": prompt, "seed": 7} | ({} if own is None else {"id": own})
            for prompt, own in zip(FIVE, ids, strict=False)
        ]
        Path("p.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    write_ids("cat/1", None, "../x", "d")
    first = lines(run())
    folders = [Path(one["image"]).parent.name for one in first]
    assert [name.split("-", 2)[2:] for name in folders] == [["cat-1"], [], ["x"], ["d"]]
    calls = len(home.lines())
    write_ids("other", "new", None, "d")
    again = lines(run())
    assert [one["image"] for one in again] == [one["image"] for one in first]
    assert [one["id"] for one in again] == ["other", "new", None, "d"]
    assert len(home.lines()) == calls


def test_another_seed_is_refused_with_the_line_before_any_work(home):
    run()
    before, calls = kept("out"), len(home.lines())
    records = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    records[1]["seed"] = records[4]["seed"] = 9
    Path("p.jsonl").write_text("".join(json.dumps(record) + "\n\n" for record in records))
    result = run()
    assert result.exit_code == ConfigError.exit_code
    [second] = Path("out").absolute().glob("00002-*")
    told = f"p.jsonl, line 3: prompt 2 is not the one that {second} was made for"
    assert f"{told} (seed: 7 there, 9 now)" in result.stderr
    assert "p.jsonl, line 9: prompt 5 is not" in result.stderr
    assert (kept("out"), len(home.lines())) == (before, calls)


def test_fresh_takes_the_next_directory_that_is_not_there(home):
    Path("out").mkdir()
    assert run("--fresh").exit_code == 0  # empty
    run("--fresh", "--candidates", 2)
    Path("out-3").touch()
    result = run("--fresh", "--seed", 5)
    assert str(Path("out-4").absolute()) in result.stderr
    attempts = [{name[-5] for name in kept(one) if "attempt" in name} for one in ("out", "out-2")]
    assert attempts == [{"1", "2", "3"}, {"1", "2"}]


def test_a_directory_with_something_else_is_refused(home):
    Path("out").mkdir()
    Path("out/mine.txt").write_text("mine")
    result = run()
    assert result.exit_code == StorageError.exit_code
    assert "holds something else (mine.txt)" in result.stderr


def test_two_commands_on_one_directory_are_refused_before_any_server_starts(home, monkeypatch):
    run()
    opened = []
    monkeypatch.setitem(OPENS, "components", lambda profile, **_: opened.append(profile))
    lock = RunLock(Path("out"))
    try:
        result = run()
    finally:
        lock.release()
    assert result.exit_code == StorageError.exit_code
    assert f"in use by process {os.getpid()} on " in result.stderr
    assert opened == []


def symbolic_link():
    Path("elsewhere").mkdir()
    Path("out").symlink_to("elsewhere")


def foreign_directory():
    Path("out").mkdir()
    Path("out/mine.txt").write_text("mine")


def full_disk(monkeypatch):
    def refuse(**_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)


@pytest.mark.parametrize(
    ("prepare", "options", "error", "message"),
    [
        (symbolic_link, [], StorageError, "out: a symbolic link; name the directory"),
        (lambda: Path("out").touch(), [], StorageError, "out: a file; name a directory"),
        (foreign_directory, [], StorageError, "holds something else (mine.txt)"),
        (full_disk, [], StorageError, "out: cannot be written: No space left on device"),
        (run, ["--candidates", 2], ConfigError, "settings (candidates: 3 there, 2 now)"),
        (run, ["--seed", 1], ConfigError, "settings (seed: 0 there, 1 now)"),
        (run, ["--set", "generators.tiny.steps=9"], ConfigError, "generator.steps: 4 there, 9 now"),
    ],
)
def test_a_place_that_cannot_be_used_is_refused_before_anything_is_opened(
    home, monkeypatch, prepare, options, error, message
):
    prepare(monkeypatch) if prepare is full_disk else prepare()
    before = sorted(Path().glob("out*"))
    opened = []
    monkeypatch.setitem(OPENS, "components", lambda profile, **_: opened.append(profile))
    result = run(*options)
    assert result.exit_code == error.exit_code
    assert message in result.stderr
    assert opened == []
    assert sorted(Path().glob("out*")) == before


def test_prompts_that_nobody_can_use_are_refused_together_and_nothing_is_left(home, monkeypatch):
    class Picky:
        def accepts(self, prompt):
            if prompt != "one":
                raise PromptError(f"{prompt!r} is unknown", "Known is: one.")

    @asynccontextmanager
    async def open_picky(profile, *, admit, **_):
        admit([Picky()])
        yield cast_of(home)

    monkeypatch.setitem(OPENS, "components", open_picky)
    result = run()
    assert result.exit_code == PromptError.exit_code
    lines = result.stderr.splitlines()
    assert lines[0] == f"error: p.jsonl, line 1: {FIVE[0]!r} is unknown"
    assert [line.partition(":")[0] for line in lines[1:4]] == [
        f"p.jsonl, line {number}" for number in (2, 4, 5)
    ]
    assert lines[4:] == ["Known is: one."]
    assert not Path("out").exists()
    assert home.lines() == []


@pytest.mark.parametrize("source", ["-", "/dev/stdin", "<(cat)"])
def test_prompts_from_a_pipe_reach_the_child_that_corrects_them(tmp_path, source):
    program = f"{sys.executable} -m npc_local run --out out --prompts"
    done = subprocess.run(
        ["bash", "-c", f"{program} {source} 0<&0"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input="two red circles\na purple elephant\n",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == PromptError.exit_code, done.stderr
    assert ", line 2: " in done.stderr
    assert "elephant" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a cat", "--prompts", "p.jsonl"], "Give either PROMPT... or --prompts FILE."),
        (["a cat", "--fresh"], "go with --prompts FILE"),
        (["a cat", "--agents", "2"], "go with --prompts FILE"),
        (["--prompts", "p.jsonl", "--agents", "0"], "0 is not in the range x>=1"),
        (["--prompts", "p.jsonl", "--in-flight", "0"], "0 is not in the range x>=1"),
    ],
)
def test_options_that_do_not_go_together(home, arguments, message):
    result = invoke(["run", *arguments])
    assert result.exit_code == ConfigError.exit_code
    assert message in result.stderr


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize(
    "error", [StorageError("the disk is full"), DeviceLostError("device-side assert")]
)
def test_what_no_prompt_can_go_on_with_ends_the_run(home, monkeypatch, error):
    class Failing(Images):
        def generate(self, shot, on_step=None):
            if shot.prompt == "one":
                raise error
            return super().generate(shot, on_step)

    stage(monkeypatch, home, generator=Failing(home))
    result = run("--in-flight", 1)
    assert result.exit_code == error.exit_code
    assert f"error: {error}" in result.stderr
    *ended, last = lines(result)
    assert [one["prompt"] for one in ended] == FIVE[:2]
    assert last == {"status": "error", "error": str(error), "exit_code": error.exit_code}
    assert "stopped: 2 of 5 prompts; 2 corrected; in " in result.stderr
    hint = f"the same command goes on, with --out {Path('out').absolute()} and without --fresh\n"
    assert hint in result.stderr
    assert not list(Path("out").glob("00003-*/correction.json"))
    stage(monkeypatch, home)
    assert len(lines(run())) == 5


def test_results_that_cannot_be_written_end_the_run(home, monkeypatch):
    from npc_local.run.output import result_folder as rundir

    def refuse(path, data):
        raise StorageError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr(rundir, "write_durably", refuse)
    result = run()
    assert result.exit_code == StorageError.exit_code
    assert "original.png: cannot be written: No space left on device" in result.stderr
    [line] = lines(result)
    assert (line["status"], line["exit_code"]) == ("error", StorageError.exit_code)


# ---------------------------------------------------------------- prompts as arguments


def test_a_command_killed_before_its_first_step_begins_again(home):
    Path("out/logs").mkdir(parents=True)
    Path("out/logs/server.log").write_text("starting")
    result = invoke(["run", "one", "--out", "out", "--json"])
    assert result.exit_code == 0, result.stderr


def test_prompts_of_the_command_line_go_on_with_an_out(home):
    command = ["run", *PROMPTS, "--seed", "7", "--out", "out", "--json"]
    first = invoke(command)
    assert first.exit_code == 0, first.stderr
    calls = len(home.lines())
    again = invoke(command)
    assert [same(one, "out") for one in lines(again)] == [same(one, "out") for one in lines(first)]
    assert len(home.lines()) == calls
    other = invoke(["run", "one", "--seed", "7", "--out", "out"])
    assert other.exit_code == ConfigError.exit_code
    assert "prompts: " in other.stderr
    assert len(home.lines()) == calls


# ---------------------------------------------------------------- killed, for real

SHAPES = ["two red circles", "three blue stars", "two green crosses and one red square"]


def shapes_command(out):
    settings = ["--set", "generators.shapes.steps=8", "--set", "generators.shapes.negative_steps=2"]
    options = ["--prompts", "s.txt", "--out", out, "--candidates", "2", "--json", *settings]
    return [sys.executable, "-m", "npc_local", "run", *options]


def finished(command, home):
    done = subprocess.run(
        command,
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def rows(directory):
    try:
        with sqlite3.connect(f"file:{directory}/journal.sqlite?mode=ro", uri=True) as database:
            return database.execute("SELECT count(*) FROM steps").fetchone()[0]
    except sqlite3.Error:
        return 0


def test_a_run_that_is_killed_ends_like_one_that_was_not(tmp_path):
    (tmp_path / "s.txt").write_text("\n".join(SHAPES))
    whole = finished(shapes_command("whole"), tmp_path)
    assert any(one["attempts"] for one in whole)
    child = subprocess.Popen(
        shapes_command("killed"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while rows(tmp_path / "killed") < 8:
        assert time.monotonic() < deadline
        assert child.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait(60)
    free(tmp_path / "killed")
    resumed = finished(shapes_command("killed"), tmp_path)
    for one, other in zip(whole, resumed, strict=True):
        assert same(one, tmp_path / "whole") == same(other, tmp_path / "killed")
    images = {name: data for name, data in kept(tmp_path / "whole").items() if "png" in name}
    assert len(images) > 3 * 3
    assert images == {n: d for n, d in kept(tmp_path / "killed").items() if "png" in n}


def free(directory):
    """Wait for the killed command's child to notice, and to give the directory up."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return RunLock(directory).release()
        except StorageError:
            assert time.monotonic() < deadline
            time.sleep(0.02)

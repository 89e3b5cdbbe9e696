"""Faults, injected: kills, signals, full disks, damage, two processes, changed settings."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from npc_local.core.errors import ConfigError, StorageError
from npc_local.core.files import atomic as durable
from npc_local.core.records import Shot
from npc_local.run.journal import database as journal_file
from npc_local.run.journal.journal import Journal, Row
from npc_local.run.stages import Stages
from tests.run.journal import world as journal_world
from tests.run.journal.world import IDENTITY, PROMPTS, Images, Log, cast_of

ROOT = Path(__file__).parents[3]
SHOT = Shot("x", None, 1)


@pytest.fixture
def quick():
    """A directory in memory where there is one: a killed process needs no disk to lose data."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(dir=place))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "calls")


def answers(directory):
    """Return all answers of a run by key, without what may differ between two runs: time."""
    with Journal.open(directory, IDENTITY) as journal:
        rows = list(journal.rows())
    assert len({(row.kind, row.key) for row in rows}) == len(rows)
    return {(row.kind, row.key): (row.value, row.image_sha256, row.cost.forwards) for row in rows}


def python(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


# ---------------------------------------------------------------- F1: killed


@pytest.mark.timeout(7200)  # hundreds of runs: minutes, on a busy machine many
def test_killed_at_every_commit_point_it_ends_like_a_run_that_was_not(quick, log, tmp_path):
    whole = journal_world.run(tmp_path / "whole", log)
    expected, calls = answers(tmp_path / "whole"), Counter(log.lines())
    assert set(calls.values()) == {1}
    assert [search["status"] for search in whole] == ["corrected", "corrected"]

    with python("-m", "tests.run.journal.kill_driver", quick) as driver:
        out, err = driver.communicate(timeout=3600)
    *points, end = out.splitlines()
    assert end == "end", err
    kinds = {point.split(": ")[1] for point in points}
    assert kinds >= {
        *("before file", "before fsync", "after fsync", "before replace", "after replace"),
        *("after file", "before INSERT INTO steps", "after INSERT INTO steps"),
        *("before COMMIT", "after COMMIT", "before schema", "after INSERT INTO meta"),
    }
    for number, point in enumerate(points, start=1):
        home = quick / str(number)
        once = Log(home / "calls")
        before = Counter(once.lines())
        assert not before - calls, point
        assert journal_world.run(home / "run", once) == whole, point
        both = Counter(once.lines())
        assert both.keys() == calls.keys(), point
        # Two prompts were under way, so at most two steps were.
        assert sum((both - calls).values()) <= 2, (point, both - calls)
        assert answers(home / "run") == expected, point
        assert not list((home / "run" / "images").glob(".*")), point


def test_killed_again_and_again_it_still_ends(quick, tmp_path):
    """Each time at the fourth commit point after the start, until one run gets through."""
    script = """
import sys
from pathlib import Path
from tests.run.journal import kill_driver
from tests.run.journal import world as journal_world
home = Path(sys.argv[1])
kill_driver.install(kill_driver.Crossings(30, home / "point"))
journal_world.run(home / "run", journal_world.Log(home / "calls"))
"""
    deaths = 0
    while True:
        with python("-c", script, quick) as child:
            _, err = child.communicate(timeout=60)
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, err
        deaths += 1
        assert deaths < 30
    assert deaths > 3
    journal_world.run(tmp_path / "whole", Log(tmp_path / "calls"))
    assert answers(quick / "run") == answers(tmp_path / "whole")


# ---------------------------------------------------------------- F2: signals

STUCK = """
import asyncio, sys
from pathlib import Path
from npc_local.cli.process import _ends_as_interrupts
from npc_local.run.journal.journal import Journal
from npc_local.run.stages import Stages
from tests.run.journal import world

class Stuck(world.Agents):
    async def complete(self, request):
        if request.role == "propose":
            print("stuck", file=sys.stderr, flush=True)
            await asyncio.Event().wait()
        return await super().complete(request)

home = Path(sys.argv[1])
log = world.Log(home / "calls")
with _ends_as_interrupts():
    try:
        with Journal.open(home / "run", world.IDENTITY) as journal:
            steps = Stages(world.cast_of(log, agents=Stuck(log)), journal, agents=2)
            asyncio.run(world.search_all(steps))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_call_leaves_what_was_done(quick, tmp_path, how):
    with python("-c", STUCK, quick) as child:
        assert child.stderr.readline() == "stuck\n"
        child.send_signal(how)
        child.communicate(timeout=60)
    assert child.returncode == 130
    log = Log(quick / "calls")
    whole = journal_world.run(tmp_path / "whole", Log(tmp_path / "calls"))
    assert journal_world.run(quick / "run", log) == whole
    # The call that hung left no line; the other prompt may have been in the middle of one.
    assert sum(count - 1 for count in Counter(log.lines()).values()) <= 1
    assert answers(quick / "run") == answers(tmp_path / "whole")


# ---------------------------------------------------------------- F3: the disk is full


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_full_disk_stops_it_and_leaves_what_there_was(log, tmp_path, monkeypatch, call):
    run = tmp_path / "run"
    journal_world.run(run, log, PROMPTS[:1])
    before, done = answers(run), len(log.lines())

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, Journal.open(run, IDENTITY) as journal:
        patched.setattr(durable.os, call, full)
        image = Images(log).generate(SHOT).image
        with pytest.raises(StorageError, match=r"images/k\.png: cannot be written: No space left"):
            journal.add(Row("generate", "k", {}, {}), image)
        assert journal.find("generate", "k") is None
    assert not list((run / "images").glob("*k.png*"))
    assert not list(run.rglob("*.tmp"))
    assert answers(run) == before

    with monkeypatch.context() as patched, Journal.open(run, IDENTITY) as journal:
        patched.setattr(durable.os, call, full)
        [there] = asyncio.run(journal_world.search_all(Stages(cast_of(log), journal), PROMPTS[:1]))
        assert there["status"] == "corrected"
        with pytest.raises(StorageError, match="No space left on device"):
            asyncio.run(journal_world.search_all(Stages(cast_of(log), journal), PROMPTS[1:]))
    assert not list(run.rglob("*.tmp"))
    journal_world.run(run, log)
    assert max(Counter(log.lines()[done:]).values()) <= 2


def _searched(run, log, **parts):
    with Journal.open(run, IDENTITY) as journal:
        return asyncio.run(journal_world.search_all(Stages(cast_of(log, **parts), journal)))


def test_a_database_without_room_stops_it_and_leaves_what_there_was(log, tmp_path):
    run = tmp_path / "run"
    journal_world.run(run, log, PROMPTS[:1])
    before = answers(run)
    with Journal.open(run, IDENTITY) as journal:
        [pages] = journal._database.execute("PRAGMA page_count").fetchone()
        journal._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageError, match=r"journal\.sqlite: cannot be written: no space"):
            journal.add(Row("verify", "k", {"much": "x" * 100_000}, {}))
        assert journal.find("verify", "k") is None
        assert len(list(journal.rows())) == len(before)
    assert answers(run) == before


FILL = """
import os, sys
from pathlib import Path
from npc_local.core.errors import StorageError
from npc_local.run.journal.journal import Journal
place, left = Path(sys.argv[1]), int(sys.argv[2])
disk = os.statvfs(place)
(place / "filler").write_bytes(bytes(disk.f_bavail * disk.f_frsize - left))
try:
    with Journal.open(place / "run", {}):
        print("opened")
except StorageError as error:
    print(str(error).rpartition(": ")[2])
"""


def test_a_full_disk_is_called_one_whatever_is_written_when_it_gets_full(tmp_path):
    """For want of room for its shared memory, SQLite speaks of a disk I/O error."""
    script = 'mount -t tmpfs -o size=1M none /mnt && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-c", FILL, "/mnt"]
    said = set()
    for left in range(0, 64, 4):
        done = subprocess.run(
            [*command, str(left * 1024)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        if "unshare" in done.stderr or "mount" in done.stderr:
            pytest.skip(f"no small disk can be had here: {done.stderr}")
        assert done.returncode == 0, done.stderr
        said.add(done.stdout.strip().lower())
    assert said <= {"no space left on device", "no space left on the disk", "opened"}
    assert len(said) > 1


@pytest.mark.parametrize("name", ["IOERR_SHMSIZE", "IOERR_WRITE", "IOERR_FSYNC", "CANTOPEN"])
@pytest.mark.parametrize("refusal", [errno.ENOSPC, errno.EDQUOT, errno.EIO, None])
def test_only_for_want_of_room_is_a_disk_called_full(tmp_path, monkeypatch, name, refusal):
    def trial(**_):
        if refusal is None:
            return tempfile.SpooledTemporaryFile()
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(journal_file.tempfile, "TemporaryFile", trial)
    failure = sqlite3.OperationalError("disk I/O error")
    failure.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{name}")
    with pytest.raises(StorageError) as told, journal_file.readable_errors(tmp_path / "j"):
        raise failure
    full = refusal in (errno.ENOSPC, errno.EDQUOT)
    assert ("no space left on the disk" in str(told.value)) is full
    assert ("cannot be used: disk I/O error" in str(told.value)) is not full


# ---------------------------------------------------------------- F4: a damaged database


def _notices(run, log):
    """Open a run, and go on with it; return the notices of its opening."""
    with Journal.open(run, IDENTITY) as journal:
        notices = list(journal.notices)
    journal_world.run(run, log)
    return notices


@pytest.fixture
def finished(tmp_path, log):
    """A run that came to its end, its answers, and its calls."""
    run = tmp_path / "run"
    journal_world.run(run, log)
    return run, answers(run), len(log.lines())


def _damage_header(data):
    return b"\xff" * 100 + data[100:]


def _damage_half(data):
    return data[: len(data) // 2]


def _damage_leaf(data):
    """Zero one of the pages that hold rows."""
    page = data.index(b'"no second"') // 4096 * 4096
    return data[:page] + bytes(4096) + data[page + 4096 :]


@pytest.mark.parametrize("damage", [_damage_header, _damage_half, _damage_leaf])
def test_a_damaged_database_is_kept_aside_and_the_rest_done_again(finished, log, damage):
    run, before, calls = finished
    file = run / "journal.sqlite"
    broken = damage(file.read_bytes())
    file.write_bytes(broken)
    [notice] = _notices(run, log)
    assert "journal.sqlite: damaged" in notice
    assert "done again" in notice
    kept = [path for path in (run / "damaged").iterdir() if path.suffix == ".sqlite"]
    assert [path.read_bytes() for path in kept] == [broken]
    assert str(kept[0]) in notice
    assert answers(run) == before
    again = log.lines()[calls:]
    assert max(Counter(again).values(), default=1) == 1
    if damage is _damage_leaf:
        assert 0 < len(again) < calls  # what could be read was used
    with Journal.open(run, IDENTITY) as journal:
        assert journal.notices == []


def test_one_bit_in_a_row_is_a_row_that_does_not_count(finished, log):
    """SQLite has no checksum a page, so it cannot see this."""
    run, before, calls = finished
    file = run / "journal.sqlite"
    data = file.read_bytes()
    assert b'"no second"' in data
    file.write_bytes(data.replace(b'"no second"', b'"no seconc"', 1))
    with Journal.open(run, IDENTITY) as journal:
        assert journal.notices == []
    journal_world.run(run, log)
    assert 0 < len(log.lines()) - calls <= 2  # that verdict, or that proposal
    assert answers(run) == before


def test_only_rows_that_hold_up_are_taken_over(tmp_path):
    run = tmp_path / "run"
    with Journal.open(run, IDENTITY) as journal:
        for number in range(40):
            journal.add(Row("verify", f"k{number}", {"filler": "x" * 500}, f"answer {number}"))
        journal._database.execute("UPDATE steps SET value = '\"other\"' WHERE key = 'k0'")
    file = run / "journal.sqlite"
    data = file.read_bytes()
    page = data.index(b"answer 20") // 4096 * 4096
    file.write_bytes(data[:page] + bytes(4096) + data[page + 4096 :])
    with Journal.open(run, IDENTITY) as journal:
        kept = [row.value for row in journal.rows()]
        [count] = journal._database.execute("SELECT count(*) FROM steps").fetchone()
    assert {"answer 1", "answer 39"} < set(kept) < {f"answer {number}" for number in range(40)}
    assert count == len(kept) == len(set(kept))
    assert f"{count} steps could be read" in journal.notices[0]


def test_a_torn_write_ahead_log_loses_at_most_its_end(log, tmp_path):
    run, copy = tmp_path / "run", tmp_path / "copy"
    journal = Journal.open(run, IDENTITY)
    for number in range(20):
        journal.add(Row("verify", f"k{number}", {}, {"n": number}))
    copy.mkdir()
    for name in ("journal.sqlite", "journal.sqlite-wal"):
        shutil.copy(run / name, copy)
    journal.close()
    wal = copy / "journal.sqlite-wal"
    os.truncate(wal, wal.stat().st_size - 5_000)
    with Journal.open(copy, IDENTITY) as torn:
        kept = [row.value["n"] for row in torn.rows()]
    assert kept == list(range(len(kept)))
    assert 10 < len(kept) < 20


def test_a_database_that_is_gone_or_empty_is_told(finished, log):
    run, before, _ = finished
    for empty in (lambda file: file.write_bytes(b""), lambda file: file.unlink()):
        empty(run / "journal.sqlite")
        [notice] = _notices(run, log)
        assert "missing or empty" in notice
        assert answers(run) == before


def test_damage_does_not_open_the_door_to_another_run(finished):
    run, _, _ = finished
    file = run / "journal.sqlite"
    file.write_bytes(_damage_header(file.read_bytes()))
    with pytest.raises(ConfigError, match=r"generator\.steps: 20 there, 28 now"):
        Journal.open(run, IDENTITY | {"generator": {"steps": 28}})


def test_damage_that_shows_while_it_runs_is_told(finished):
    run, _, _ = finished
    with Journal.open(run, IDENTITY) as journal:
        file = run / "journal.sqlite"
        data = file.read_bytes()
        file.write_bytes(data[:4096] + bytes(len(data) - 4096))
        journal._database.execute("PRAGMA shrink_memory")
        with pytest.raises(StorageError, match=r"damaged .*the same command, run again"):
            list(journal.rows())


# ---------------------------------------------------------------- F5: a damaged image


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def _remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [_flip, _truncate, _remove])
def test_a_damaged_image_is_kept_aside_and_made_again(finished, log, damage):
    run, before, calls = finished
    whole = _searched(run, log)
    with Journal.open(run, IDENTITY) as journal:
        row = next(journal.rows("generate"))
        path = journal.image_path(row)
    damage(path)
    assert _searched(run, log) == whole
    [again] = log.lines()[calls:]  # the same pixels came out: what was said of them still holds
    assert again.startswith("generate | ")
    assert answers(run) == before
    kept = list((run / "damaged").glob("*.png")) if (run / "damaged").exists() else []
    assert len(kept) == (damage is not _remove)
    with Journal.open(run, IDENTITY) as journal:
        assert journal.costs()["generate"].steps == len(list(journal.rows("generate"))) + 1


class Drifting(Images):
    """A generator that never makes the same image twice."""

    def generate(self, shot, on_step=None):
        render = super().generate(shot, on_step)
        render.image.putpixel((7, 7), (len(self.log.lines()), 0, 0))
        return render


def test_what_was_said_of_an_image_that_comes_out_otherwise_is_asked_again(tmp_path, log):
    run = tmp_path / "run"
    _searched(run, log, generator=Drifting(log))
    calls = len(log.lines())
    with Journal.open(run, IDENTITY) as journal:
        originals = [row for row in journal.rows("generate") if not row.inputs["shot"]["negative"]]
        _flip(journal.image_path(originals[0]))
    _searched(run, log, generator=Drifting(log))
    again = Counter(line.split(" | ")[0] for line in log.lines()[calls:])
    assert again == {"generate": 1, "verify": 1, "caption": 1}  # the captions read the same
    calls = len(log.lines())
    _searched(run, log, generator=Drifting(log))
    assert len(log.lines()) == calls


# ---------------------------------------------------------------- F6: a second process

HOLDER = """
import sys
from pathlib import Path
from npc_local.run.journal.journal import Journal
journal = Journal.open(Path(sys.argv[1]), {})
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path):
    with python("-c", HOLDER, tmp_path, stdin=subprocess.PIPE) as child:
        assert child.stdout.readline() == "open\n"
        message = rf"in use by process {child.pid} on \S+, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
        with pytest.raises(StorageError, match=message):
            Journal.open(tmp_path, {})
        child.kill()
    assert json.loads((tmp_path / "journal.lock").read_text())["pid"] == child.pid
    with Journal.open(tmp_path, {}):
        assert json.loads((tmp_path / "journal.lock").read_text())["pid"] == os.getpid()
        with pytest.raises(StorageError, match=f"in use by process {os.getpid()}"):
            Journal.open(tmp_path, {})
    with Journal.open(tmp_path, {}):
        pass


# ---------------------------------------------------------------- F7: another run


def test_another_run_s_settings_are_refused_one_by_one(tmp_path):
    there = {"generator": {"steps": 20, "fingerprint": "a" * 64, "size": [64, 64]}, "votes": 1}
    now = {
        "generator": {"steps": 28, "fingerprint": "b" * 64, "size": [64, 64]},
        "votes": 1,
        "arms": {"x": 1},
    }
    with Journal.open(tmp_path, there) as journal:
        journal.add(Row("verify", "k", {}, {}))
    with pytest.raises(ConfigError) as refused:
        Journal.open(tmp_path, now)
    said = str(refused.value)
    assert "generator.steps: 20 there, 28 now" in said
    assert "generator.fingerprint: 'aaaa" in said
    assert "arms.x: absent there, 1 now" in said
    assert "votes" not in said
    assert "size" not in said
    with Journal.open(tmp_path, there) as journal:  # untouched, and the lock is free
        assert len(list(journal.rows())) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "a run of another version of npc-local (the code of caption, verify); go on with"),
        (
            {"votes": 3},
            "a run with other settings (votes: 1 there, 3 now; the code of caption, ver",
        ),
    ],
)
def test_a_run_of_other_code_is_refused_in_words_and_with_what_to_do(tmp_path, change, said):
    there = {"votes": 1, "code": {"caption": "a" * 64, "verify": "b" * 64, "rank": "c" * 64}}
    now = there | change | {"code": {"caption": "d" * 64, "verify": "e" * 64, "rank": "c" * 64}}
    with Journal.open(tmp_path, there):
        pass
    with pytest.raises(ConfigError) as refused:
        Journal.open(tmp_path, now)
    assert said in str(refused.value)
    assert str(refused.value).endswith("in a new directory: --fresh, or another --out")
    assert "aaaa" not in str(refused.value)


def test_other_weights_under_the_same_name_get_no_answer_of_the_first(tmp_path, log):
    run = tmp_path / "run"
    first = _searched(run, log)
    calls = log.lines()
    _searched(run, log, generator=Images(log, name="other weights"))
    made = [line for line in calls if line.startswith("generate")]
    assert Counter(log.lines()[len(calls) :]) == Counter(made)
    assert _searched(run, log) == first


# ---------------------------------------------------------------- F36: no permission

_AS_NOBODY = """
import os, sys
from pathlib import Path
from npc_local.core.errors import StorageError
from npc_local.run.journal.journal import Journal
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
for path in sys.argv[1:]:
    try:
        Journal.open(Path(path), {})
    except StorageError as error:
        print(error)
"""


def test_a_directory_that_cannot_be_written_is_a_clear_error(quick):
    run, read_only = quick / "run", quick / "read-only"
    with Journal.open(run, {}):
        pass
    read_only.mkdir()
    quick.chmod(0o755)
    for folder in (read_only, run):
        folder.chmod(0o555)
    with python("-c", _AS_NOBODY, read_only, read_only / "below", run) as child:
        out, err = child.communicate(timeout=60)
    assert err == ""
    assert out.splitlines() == [
        f"{read_only}: cannot be written: Permission denied",
        f"{read_only}/below: cannot be written: Permission denied",
        f"{run}: cannot be written: Permission denied",
    ]


def test_a_database_that_cannot_be_written_is_a_clear_error(tmp_path, monkeypatch):
    with Journal.open(tmp_path, {}):
        pass
    connect = sqlite3.connect

    def read_only(file, **options):
        return connect(f"{Path(file).as_uri()}?mode=ro", uri=True, **options)

    with monkeypatch.context() as patched:
        patched.setattr(journal_file.sqlite3, "connect", read_only)
        journal = Journal.open(tmp_path, {})
        with pytest.raises(StorageError, match=r"journal\.sqlite: cannot be used: .*readonly"):
            journal.add(Row("verify", "k", {}, {}))
        journal.close()


# ---------------------------------------------------------------- F38: the order of writes


def test_image_then_name_then_directory_then_row(tmp_path, log, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(descriptor):
        directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("directory" if directory else "file")
        fsync(descriptor)

    def noting_replace(source, target):
        calls.append(f"replace {Path(target).name}")
        replace(source, target)

    render = Images(log).generate(SHOT)
    with Journal.open(tmp_path / "run", {}) as journal:
        monkeypatch.setattr(durable.os, "fsync", noting_fsync)
        monkeypatch.setattr(durable.os, "replace", noting_replace)
        journal._database.set_trace_callback(lambda text: calls.append(text.split()[0]))
        journal.add(Row("generate", "k", {}, {}), render.image)
    written = ["file", "replace k.png", "directory"]
    assert calls == [*written, "BEGIN", "UPDATE", "INSERT", "COMMIT"]


def test_every_commit_is_on_the_disk(tmp_path):
    with Journal.open(tmp_path, {}) as journal:
        [mode] = journal._database.execute("PRAGMA journal_mode").fetchone()
        [synchronous] = journal._database.execute("PRAGMA synchronous").fetchone()
    assert (mode, synchronous) == ("wal", 2)  # 2 is FULL

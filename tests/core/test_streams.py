"""Standard output and error of real processes: full disks, readers that left, and that never read.

Nothing here is timed; a process that hangs is ended by the test's own time limit.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest

from tests.cli.test_main import ROOT

HEAD = """\
import os, sys
from npc_local.core.streams import steady_streams

"""
TALK = """\
with steady_streams() as streams:
    for number in range(3000):
        print(f"{number} on its way " + "." * 100, file=sys.stderr)
    print("result")
    streams.deliver()
os._exit(0 if streams.lost is None else 7)
"""
RESULTS = """\
with steady_streams() as streams:
    for number in range(3000):
        print(f"{number} " + "." * 100)
    print("all done", file=sys.stderr)
    streams.deliver()
os._exit(0 if streams.lost is None else 7)
"""


def full(held):
    return held.enter_context(open("/dev/full", "wb"))


def left(held):
    """Return a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    held.callback(os.close, writer)
    return writer


def hung_up(held):
    """Return a terminal whose other end is closed."""
    other, terminal = os.openpty()
    os.close(other)
    held.callback(os.close, terminal)
    return terminal


def unread(held):
    """Return a pipe that nobody reads."""
    reader, writer = os.pipe()
    held.callback(os.close, reader)
    held.callback(os.close, writer)
    return writer


BROKEN = [full, left, hung_up]


def begin(code, **where):
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + code], env=os.environ | {"PYTHONPATH": str(ROOT)}, **where
    )


@contextmanager
def ending(process):
    """Give a process, which is ended with the test."""
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("stream", [*BROKEN, unread])
def test_nothing_that_befalls_standard_error_is_an_error(stream):
    with ExitStack() as held:
        child = begin(TALK, stderr=stream(held), stdout=subprocess.PIPE, text=True)
        held.enter_context(ending(child))
        assert child.wait(60) == 0
        assert child.stdout.read() == "result\n"


@pytest.mark.parametrize("stream", BROKEN)
def test_results_that_cannot_be_written_are_known_to_be_lost(stream):
    with ExitStack() as held:
        child = begin(RESULTS, stdout=stream(held), stderr=subprocess.PIPE, text=True)
        held.enter_context(ending(child))
        assert child.communicate(timeout=60)[1] == "all done\n"
        assert child.returncode == 7


@pytest.mark.parametrize(("closed", "code"), [(1, 7), (2, 0)])
def test_a_stream_that_is_closed_from_the_start_is_like_one_that_cannot_be_written(closed, code):
    script = f"import os, subprocess, sys\nos.close({closed})\n"
    script += f"sys.exit(subprocess.call([sys.executable, '-c', {HEAD + TALK!r}]))"
    child = begin(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with ending(child):
        out, _ = child.communicate(timeout=60)
    assert (child.returncode, out) == (code, b"" if closed == 1 else b"result\n")


def test_a_file_that_is_opened_later_gets_no_number_of_a_closed_stream(tmp_path):
    code = f"""\
for number in range(3):
    os.close(number)
with steady_streams():
    with open({str(tmp_path / "journal")!r}, "w") as file:
        assert file.fileno() > 2
        print("to nobody", file=sys.stderr)
        print("to nobody")
"""
    child = begin(code)
    assert child.wait(60) == 0
    assert (tmp_path / "journal").read_text() == ""


def test_work_goes_on_while_nobody_reads_the_results_and_all_of_them_arrive_later():
    child = begin(RESULTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with ending(child):
        assert child.stderr.readline() == "all done\n"  # though nothing has been read
        lines = child.stdout.read().splitlines()
        assert child.wait(60) == 0
    assert [int(line.split()[0]) for line in lines] == list(range(3000))


def test_an_interrupt_ends_the_wait_for_a_reader():
    child = begin(RESULTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with ending(child):
        assert child.stderr.readline() == "all done\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(60) != 0


def test_both_streams_keep_their_order_where_they_are_read_as_one():
    code = """\
with steady_streams():
    for number in range(300):
        print(number, file=(sys.stdout, sys.stderr)[number % 2])
"""
    child = begin(code, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    out, _ = child.communicate(timeout=60)
    assert out.split() == [str(number) for number in range(300)]


def test_a_stream_that_somebody_has_set_not_to_block_loses_nothing():
    code = "os.set_blocking(1, False)\n" + RESULTS
    child = begin(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with ending(child):
        child.stderr.readline()
        assert len(child.stdout.read().splitlines()) == 3000
        assert child.wait(60) == 0


def test_what_an_encoding_lacks_is_shown_as_an_escape():
    code = "with steady_streams():\n    print('\\u00e9 \\ud800')"
    child = subprocess.run(
        [sys.executable, "-c", HEAD + code],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (child.returncode, child.stdout) == (0, "\\xe9 \\ud800\n")


def test_a_process_that_is_forked_off_can_write_too():
    code = """\
with steady_streams():
    if os.fork() == 0:
        print("child", flush=True)
        os._exit(0)
    os.wait()
    print("parent")
"""
    child = begin(code, stdout=subprocess.PIPE, text=True)
    assert child.communicate(timeout=60)[0] == "child\nparent\n"

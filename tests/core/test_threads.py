"""The event loop of a command hears a Ctrl-C wherever the program is."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from npc_local.core.threads import run_interruptibly
from tests.cli.test_main import ROOT

SCRIPT = """\
import asyncio, sys, threading, time
from npc_local.core.threads import run_interruptibly

def stand_still():
    print("busy", flush=True)
    while True:
        time.sleep(0.01)

async def imports():
    stand_still()

async def waits():
    print("busy", flush=True)
    await asyncio.Event().wait()

async def thread():
    await asyncio.to_thread(stand_still)

async def slow():
    try:
        await waits()
    finally:
        await waits()

async def work():
    try:
        await globals()[sys.argv[1]]()
    finally:
        await asyncio.sleep(0)
        print("in order", flush=True)

try:
    run_interruptibly(work())
except KeyboardInterrupt:
    print("interrupted", flush=True)
    import os
    os._exit(130)
"""


def begin(how, **more):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, how],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


@pytest.mark.parametrize("how", ["waits", "imports", "thread"])
def test_one_interrupt_is_enough_and_what_was_begun_is_put_in_order(how):
    with begin(how) as child:
        try:
            assert child.stdout.readline() == "busy\n"
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=60)
        finally:
            child.kill()
    assert (child.returncode, out, err) == (130, "in order\ninterrupted\n", "")


def test_a_second_interrupt_ends_what_the_first_has_begun_to_put_in_order():
    with begin("slow") as child:
        try:
            for _ in range(2):
                assert child.stdout.readline() == "busy\n"
                child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 130
    assert out.endswith("interrupted\n")
    assert err == ""


def test_a_job_that_is_to_ignore_interrupts_does():
    def ignore():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    with begin("waits", preexec_fn=ignore) as child:
        try:
            child.stdout.readline()
            child.send_signal(signal.SIGINT)
            child.send_signal(signal.SIGUSR1)  # after it, in order
            assert child.wait(60) == -signal.SIGUSR1
        finally:
            child.kill()


def test_results_and_errors_are_those_of_the_work():
    async def fails():
        raise ZeroDivisionError

    async def cancelled():
        raise asyncio.CancelledError

    assert run_interruptibly(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ZeroDivisionError):
        run_interruptibly(fails())
    with pytest.raises(asyncio.CancelledError):
        run_interruptibly(cancelled())

"""The air gap, proved from outside Python (F22, F24), with controls that the proof can fail (F23).

What the guard itself does is in test_egress.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from npc_local.core.offline.egress import PROXIES
from npc_local.core.offline.switches import SWITCHES
from tests.air_gap import ELSEWHERE, departures, sealing, tracing

ROOT = Path(__file__).parents[1]
PROMPT = "A photo of two red circles and three blue stars"
DEMO = ["run", "--json", "--seed", "11", "--out", "out"]
DEMO += ["--set", "generators.shapes.steps=20", "--set", "generators.shapes.negative_steps=3"]
NOTHING = {"guarded": True, "allowed": [], "blocked": []}

# Connects a datagram socket, which sends nothing, and sends in each of the traced ways.
LEAVE = f"""
import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for leave in (
    lambda: udp.connect(({ELSEWHERE!r}, 9)),
    lambda: udp.sendto(b"x", ({ELSEWHERE!r}, 9)),
    lambda: udp.sendmsg([b"x"], [], 0, ({ELSEWHERE!r}, 9)),
    lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 9)),
):
    try:
        leave()
    except OSError:
        pass
"""

# Asks for the address of a name, which is a datagram to a name server.
ASK = """
for ask in (
    lambda: socket.getaddrinfo("example.invalid", 9),
    lambda: socket.gethostbyname("example.invalid"),
    lambda: udp.connect(("example.invalid", 9)),
    lambda: udp.sendto(b"x", ("example.invalid", 9)),
):
    try:
        ask()
    except OSError:
        pass
"""


def environment(**extra: str) -> dict[str, str]:
    """Return our environment, asking for the network wherever there is a switch."""
    return os.environ | dict.fromkeys(SWITCHES, "0") | {"PYTHONPATH": str(ROOT)} | extra


def run(command: list[str], cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=environment(**extra), capture_output=True, text=True, timeout=300
    )


def possible(make, *arguments):
    """Return a command line; where this machine lacks a tool, skip, and fail in CI."""
    try:
        return make(*arguments)
    except LookupError as missing:
        if "NPC_LOCAL_CI" in os.environ:
            pytest.fail(f"the air gap is not proved: {missing}")
        pytest.skip(f"THE AIR GAP IS NOT PROVED HERE: {missing}")


@pytest.fixture
def proxy():
    """A proxy on loopback that every variable points to, and the list of what reached it."""
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen():
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                seen.append(address)
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        names = [*PROXIES, *(name.upper() for name in PROXIES)]
        yield dict.fromkeys(names, url), seen


def assert_whole(process, folder):
    """The demo ran to its end and kept everything."""
    assert process.returncode == 0, process.stderr
    line = json.loads(process.stdout)
    assert line["prompt"] == PROMPT
    assert line["status"] in {"already-correct", "corrected", "best-effort"}
    kept = json.loads((folder / "out" / "correction.json").read_text())
    assert kept["network"] == NOTHING
    assert line.pop("exit_code") == 0
    assert {name: kept[name] for name in line} == line
    assert len(line["attempts"]) > 0  # all roles, the encoder and a negative had their turn
    assert (folder / "out" / "sheet.png").exists()


def test_the_demo_runs_where_there_is_only_loopback(tmp_path):
    command = possible(sealing, [sys.executable, "-m", "npc_local", *DEMO, PROMPT])
    assert_whole(run(command, tmp_path), tmp_path)


def test_the_demo_tries_to_reach_nobody(tmp_path, proxy):
    """With a network, or whatever this machine has of one, and proxies that would take it."""
    variables, seen = proxy
    demo = [sys.executable, "-m", "npc_local", *DEMO, PROMPT]
    trace = tmp_path / "trace"
    process = run(possible(tracing, demo, trace), tmp_path, **variables)
    assert_whole(process, tmp_path)
    assert departures(trace.read_text(errors="replace")) == []
    assert seen == []


@pytest.mark.parametrize("in_child", [False, True])
def test_a_trace_shows_who_leaves(tmp_path, in_child):
    """Inside a closed namespace: this does leave the process, and must not leave the machine."""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LEAVE!r}])"
    leaving = [sys.executable, "-c", code if in_child else LEAVE]
    trace = tmp_path / "trace"
    process = run(possible(sealing, possible(tracing, leaving, trace)), tmp_path)
    assert process.returncode == 0, process.stderr
    found = departures(trace.read_text())
    calls = ["connect(", "sendto(", "sendmsg(", "connect("]
    assert [call in line for call, line in zip(calls, found, strict=True)] == [True] * 4


def test_a_trace_shows_nothing_of_who_is_guarded(tmp_path):
    """The same calls, which the guard refuses before the kernel hears of them."""
    guarded = (
        f"from npc_local.core.offline.egress import guard\nwith guard():\n exec({(LEAVE + ASK)!r})"
    )
    trace = tmp_path / "trace"
    process = run(
        possible(sealing, possible(tracing, [sys.executable, "-c", guarded], trace)), ROOT
    )
    assert process.returncode == 0, process.stderr
    assert departures(trace.read_text()) == []


INET = '{sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("%s")}'
INET6 = (
    "{sa_family=AF_INET6, sin6_port=htons(9), sin6_flowinfo=htonl(0), "
    'inet_pton(AF_INET6, "%s", &sin6_addr), sin6_scope_id=0}'
)


@pytest.mark.parametrize(
    ("call", "leaves"),
    [
        (f"connect(3, {INET % '10.0.0.1'}, 16 <unfinished ...>", True),
        (f"connect(3, {INET6 % '2001:db8::1'}, 28) = -1 ENETUNREACH", True),
        (f"sendmsg(3, {{msg_name={INET % '10.0.0.1'}, msg_namelen=16}}, 0) = 1", True),
        (f"sendmmsg(3, [{INET % '127.0.0.1'}, {INET % '10.0.0.1'}], 2, 0) = 2", True),
        ("connect(3, {sa_family=AF_VSOCK, svm_cid=0x2, svm_port=0x1}, 16) = 0", True),
        ("connect(3, 0x7ffd1c2b, 16) = -1 EFAULT (Bad address)", True),
        (f"connect(3, {INET % '127.0.0.53'}, 16) = 0", False),
        (f"connect(3, {INET6 % '::1'}, 28) = 0", False),
        (f"connect(3, {INET6 % '::ffff:127.0.0.1'}, 28) = 0", False),
        ('connect(3, {sa_family=AF_UNIX, sun_path="/run/nscd/socket"}, 110) = -1 ENOENT', False),
        ("sendto(3, [{nlmsg_len=20}], 20, 0, {sa_family=AF_NETLINK, nl_pid=0}, 12) = 20", False),
        ('sendto(3, "x", 1, MSG_NOSIGNAL, NULL, 0) = 1', False),
    ],
)
def test_lines_of_a_trace(call, leaves):
    line = f"7 {call}"
    assert departures(f"7 execve(...) = 0\n{line}") == ([line] if leaves else [])


def test_an_empty_trace_proves_nothing():
    with pytest.raises(ValueError, match="empty"):
        departures("")


def test_a_run_records_and_tells_what_was_blocked(tmp_path):
    """Our process and a child phone home on the way (F23); the run goes on and says so."""
    phone = f"import socket; socket.create_connection(({ELSEWHERE!r}, 9))"
    code = f"""
import subprocess, sys
import npc_local.run.factory as cast
open_scorer = cast._open_scorer
def phoning(*arguments):
    try:
        exec({phone!r})
    except OSError as error:
        print(error, file=sys.stderr)
    child = subprocess.run([sys.executable, "-c", {phone!r}], capture_output=True, text=True)
    print(child.stderr, file=sys.stderr)
    return open_scorer(*arguments)
cast._open_scorer = phoning
from npc_local.cli.main import main
main()
"""
    process = run([sys.executable, "-c", code, *DEMO, "--candidates", "1", PROMPT], tmp_path)
    assert process.returncode == 0, process.stderr
    network = json.loads((tmp_path / "out" / "correction.json").read_text())["network"]
    assert [(one["process"], one["what"], one["to"]) for one in network["blocked"]] == [
        ("main", "connect", f"{ELSEWHERE}:9"),
        ("child", "connect", f"{ELSEWHERE}:9"),
    ]
    assert network["blocked"][1]["from"] == ["__main__:1"]
    assert process.stderr.count("egress guard refused to connect") == 2
    assert f"blocked: connect {ELSEWHERE}:9, from __main__:1" in process.stderr

"""The egress guard of the product, and the one of the tests themselves.

The product's is tried in fresh interpreters: here, the one in conftest would come first. What is
tried never leaves the machine should the guard fail: addresses are of TEST-NET and sockets mostly
datagram ones, whose connect sends nothing. The proof from outside Python is in test_air_gap.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from npc_local.backends.scripted import ScriptedBackend
from npc_local.core.config.load import load_config
from npc_local.core.config.settings import ChatBackendSettings
from npc_local.core.offline import egress
from npc_local.run import factory as components
from tests.world import FakeGenerator, FakeScorer

ROOT = Path(__file__).parents[3]
PRELUDE = """
import json, os, socket, subprocess, sys
from npc_local.core.offline import egress
def udp(family=socket.AF_INET):
    return socket.socket(family, socket.SOCK_DGRAM)
"""
# A process that tries to leave and says what came of it.
PHONE = (
    "import socket\n"
    "try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))\n"
    "except OSError as error: print(type(error).__name__)\n"
    "else: print('left')\n"
)


def python(code: str, **variables: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    run = subprocess.run(
        [sys.executable, "-c", PRELUDE + code], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


ATTEMPTS = [
    ("udp().connect(('192.0.2.1', 9))", "connect", "192.0.2.1:9"),
    ("udp().connect_ex(('192.0.2.1', 9))", "connect", "192.0.2.1:9"),
    ("socket.socket().connect(('192.0.2.1', 9))", "connect", "192.0.2.1:9"),
    ("socket.socket().connect(('example.invalid', 9))", "connect", "example.invalid:9"),
    ("udp().connect_ex(('example.invalid', 9))", "connect", "example.invalid:9"),
    ("udp().sendto(b'x', 0, ('example.invalid', 9))", "send", "example.invalid:9"),
    ("udp().sendmsg([b'x'], [], 0, ('example.invalid', 9))", "send", "example.invalid:9"),
    ("udp().bind(('example.invalid', 9))", "look up", "example.invalid:9"),
    ("udp().sendto(b'x', 0, ('192.0.2.1', 9))", "send", "192.0.2.1:9"),
    ("udp().sendto(b'x', ('<broadcast>', 9))", "send", "<broadcast>:9"),
    ("udp(socket.AF_INET6).connect(('2001:db8::1', 9))", "connect", "[2001:db8::1]:9"),
    ("udp().connect(('0.0.0.0', 9))", "connect", "0.0.0.0:9"),
    ("udp().sendto(b'x', ('192.0.2.1', 9))", "send", "192.0.2.1:9"),
    ("udp().sendmsg([b'x'], [], 0, ('192.0.2.1', 9))", "send", "192.0.2.1:9"),
    ("socket.create_connection(('192.0.2.1', 9), 1)", "connect", "192.0.2.1:9"),
    ("socket.create_connection(('example.invalid', 9), 1)", "look up", "example.invalid"),
    ("socket.getaddrinfo('Example.Invalid.', 9)", "look up", "example.invalid"),
    ("socket.getaddrinfo(b'example.invalid', 9)", "look up", "example.invalid"),
    ("socket.gethostbyname('localhost.example.invalid')", "look up", "localhost.example.invalid"),
    ("socket.gethostbyname_ex('example.invalid')", "look up", "example.invalid"),
    ("socket.gethostbyaddr('192.0.2.1')", "look up", "192.0.2.1"),
    ("socket.getnameinfo(('192.0.2.1', 9), 0)", "look up", "192.0.2.1"),
    (
        "import asyncio; asyncio.run(asyncio.open_connection('192.0.2.1', 9))",
        "connect",
        "192.0.2.1:9",
    ),
    ("import urllib.request as u; u.urlopen('http://192.0.2.1/')", "connect", "192.0.2.1:80"),
]


def test_every_attempt_is_refused_and_recorded():
    tried = json.loads(
        python(
            "found = []\n"
            f"for code in {[code for code, *_ in ATTEMPTS]!r}:\n"
            "    with egress.guard():\n"
            "        try: exec(code)\n"
            "        except OSError as error:\n"
            "            error = getattr(error, 'reason', error)\n"
            "            found.append([type(error).__name__, str(error), egress.report()])\n"
            "print(json.dumps(found))"
        )
    )
    for (code, what, to), (kind, message, report) in zip(ATTEMPTS, tried, strict=True):
        assert kind == "EgressRefused", code
        assert f"egress guard refused to {what} {to}" in message
        (blocked,) = report["blocked"]
        assert (blocked["what"], blocked["to"], blocked["process"]) == (what, to, "main")
        assert blocked["from"][0] == "__main__:1", code  # in what exec runs, not in a library


def test_what_stays_on_this_machine_is_open(tmp_path):
    code = f"""
import asyncio, threading
with egress.guard():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            socket.create_connection((host, port), 5).close()
        async def both():
            reader, writer = await asyncio.open_connection("localhost", port)
            writer.close()
        asyncio.run(both())
    udp().sendto(b"x", ("127.255.255.254", 9))
    udp().sendto(b"x", 0, ("localhost", 9))
    udp().bind(("", 0))
    udp().bind(("0.0.0.0", 0))
    udp().sendmsg([b"x"], [], 0, ("127.0.0.1", 9))
    if socket.has_ipv6:
        udp(socket.AF_INET6).connect_ex(("::1", 9))
        udp(socket.AF_INET6).connect_ex(("::ffff:127.0.0.1", 9))
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind({str(tmp_path / "s")!r})
        server.listen()
        client.connect({str(tmp_path / "s")!r})
        client.sendmsg([b"x"])
    if hasattr(socket, "AF_NETLINK"):
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).connect((0, 0))
    socket.getaddrinfo("192.0.2.1", 9)  # a number: nobody is asked
    socket.getaddrinfo(None, 9, flags=socket.AI_PASSIVE)
    print(json.dumps(egress.report()))
"""
    assert json.loads(python(code)) == {"guarded": True, "allowed": [], "blocked": []}


def test_whoever_imports_npc_local_is_not_guarded():
    """Only inside `guard`; afterwards the environment and the path are what they were."""
    code = f"""
import npc_local.core.offline.switches
def phone():
    exec({PHONE!r})
os.environ["HTTP_PROXY"] = "http://127.0.0.1:3128"
before = dict(os.environ), list(sys.path)
phone()
with npc_local.core.offline.switches.guard():
    with egress.guard():
        phone()
    phone()
    assert "HTTP_PROXY" not in os.environ
    os.environ["MINE"] = "kept"
phone()
assert os.environ.pop("MINE") == "kept"
assert (dict(os.environ), sys.path) == before
assert not egress.report()["guarded"]
assert len(egress.report()["blocked"]) == 2
"""
    # With no network at all, an attempt that the guard lets through is an OSError of the system.
    outside, *inside, after = python(code).split()
    assert inside == ["EgressRefused", "EgressRefused"]
    assert outside == after != "EgressRefused"


CHILDREN = {
    "a child": "subprocess.run([sys.executable, '-c', PHONE])",
    "a grandchild": "subprocess.run([sys.executable, '-c', GRAND])",
    "a child through a shell": "subprocess.run(f'{sys.executable} -c \"$PHONE\"', shell=True)",
    "a child with the parent's sys.path": (
        "subprocess.run([sys.executable, '-c', PHONE], "
        "env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)})"
    ),
    "a fork": (
        "pid = os.fork()\n"
        "if not pid:\n exec(PHONE); sys.stdout.flush(); os._exit(0)\n"
        "os.waitpid(pid, 0)"
    ),
    "a spawned worker": (
        "import multiprocessing\n"
        "worker = multiprocessing.get_context('spawn').Process(target=exec, args=(PHONE,))\n"
        "worker.start(); worker.join()"
    ),
    "a child that imports npc_local": (
        "subprocess.run([sys.executable, '-c', "
        "'from npc_local.core.offline import egress; "
        "import npc_local.core.offline.egress as e; assert e is egress; "
        'assert e.report()["guarded"]\\n\' + PHONE])'
    ),
}


@pytest.mark.parametrize("who", CHILDREN)
def test_children_are_guarded_and_report(who):
    code = f"""
PHONE = {PHONE!r}
GRAND = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {{PHONE!r}}])"
os.environ["PHONE"] = PHONE
with egress.guard():
    exec({CHILDREN[who]!r})
    print(json.dumps(egress.report()["blocked"]))
"""
    answer, blocked = python(code).splitlines()
    assert answer == "EgressRefused"
    (one,) = json.loads(blocked)
    assert (one["what"], one["to"], one["process"]) == ("connect", "192.0.2.1:9", "child")


MEMORY = hasattr(os, "memfd_create") and os.path.exists("/proc/self/fd")


@pytest.mark.parametrize("where", ["memory", "temporary folder"])
def test_what_children_report_to_is_gone_when_we_are(where, tmp_path):
    """In memory: also after SIGKILL, when nobody is left to remove anything."""
    if where == "memory" and not MEMORY:
        pytest.skip("no files in memory here")
    code = f"""
import tempfile; tempfile.tempdir = {str(tmp_path)!r}
if {where != "memory"}: vars(os).pop("memfd_create", None)
with egress.guard():
    subprocess.run([sys.executable, "-c", {PHONE!r}], capture_output=True)
    print(egress.report()["blocked"][0]["process"], len(os.listdir(tempfile.tempdir)))
    sys.stdout.flush()
    if {where == "memory"}: os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert done.stdout == ("child 0\n" if where == "memory" else "child 1\n"), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_sitecustomize_that_ours_hides_is_run_too(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('theirs')")
    code = f"with egress.guard(): subprocess.run([sys.executable, '-c', {PHONE!r}])"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    assert python(code, PYTHONPATH=path).split() == ["theirs", "theirs", "EgressRefused"]


def test_a_child_environment_guards_whether_or_not_we_are(tmp_path):
    """Whatever directory it starts in, and without npc_local on its path."""
    there = str(tmp_path)
    code = f"""
from npc_local.core.offline.switches import child_environment
subprocess.run([sys.executable, "-c", {PHONE!r}], env=child_environment({{}}), cwd={there!r})
print(len(egress.report()["blocked"]), egress.report()["guarded"])
"""
    assert python(code).split() == ["EgressRefused", "1", "False"]


def test_a_permit_opens_one_host_and_port_here_and_in_no_child():
    code = f"""
def resolve(host, port, *_, **__):
    sys.audit("socket.getaddrinfo", host, port, 0, 0, 0)
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 443))]
socket.getaddrinfo = resolve
def attempt(address):
    try: udp().connect(address)
    except egress.EgressRefused: return "refused"
    except OSError: return "open"  # there is no network
    return "open"
with egress.guard():
    with egress.permit("https://API.example.com/v1"), egress.permit("http://192.0.2.8:8000/v1"):
        first = attempt(("192.0.2.7", 443))
        socket.getaddrinfo("api.example.com", 443)
        print(first, attempt(("192.0.2.7", 443)), attempt(("192.0.2.8", 8000)))
        print(attempt(("192.0.2.7", 80)), attempt(("192.0.2.8", 443)), attempt(("192.0.2.9", 443)))
        try: socket.getaddrinfo("other.example.com", 443)
        except egress.EgressRefused: print("refused")
        sys.stdout.flush()
        subprocess.run([sys.executable, "-c", {PHONE.replace("192.0.2.1", "192.0.2.8")!r}])
        if not (pid := os.fork()):
            print("fork", attempt(("192.0.2.8", 8000)))
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(pid, 0)
    with egress.permit("http://127.0.0.1:8000/v1"): pass
    print(attempt(("192.0.2.7", 443)), attempt(("192.0.2.8", 8000)))
    print(*egress.report()["allowed"])
"""
    assert python(code).splitlines() == [
        "refused open open",
        "refused refused refused",
        "refused",
        "EgressRefused",
        "fork refused",
        "refused refused",
        "api.example.com:443 192.0.2.8:8000",
    ]


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"base_url": "https://api.example.com/v1", "allow_network": True}, "api.example.com:443"),
        ({"base_url": "https://api.example.com/v1"}, None),
        ({"base_url": "http://127.0.0.1:8000/v1", "allow_network": True}, None),
    ],
)
def test_only_an_openai_backend_that_says_so_is_permitted(monkeypatch, settings, allowed):
    """In force before the backend's own check, recorded, and over with the cast."""
    agent = ChatBackendSettings(kind="openai", model="m", **settings)
    profile = load_config(ROOT / "models.toml").profile("shapes")
    profile = replace(profile, backends={"shapes": agent})
    checked = []

    class Backend(ScriptedBackend):
        async def check(self):
            checked.append([egress._endpoint(*permit) for permit in egress._state.permits])

    monkeypatch.setattr(components, "open_backend", lambda name, *_, **__: Backend(name, {}))

    async def open_it():
        async with components.open_components(
            profile, generator=FakeGenerator(), scorer=FakeScorer()
        ):
            pass

    with egress.guard():
        asyncio.run(open_it())
        assert checked == [[allowed] if allowed else []]
        assert egress.report()["allowed"] == checked[0]
    assert egress._state.permits == []


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_on_this_machine_is_no_way_out(name):
    """F24. Without the guard, it is asked: the control."""
    code = f"""
import threading, urllib.request
asked = []
with socket.create_server(("127.0.0.1", 0)) as server:
    def listen():
        while True:
            connection, _ = server.accept()
            asked.append(1)
            connection.close()
    threading.Thread(target=listen, daemon=True).start()
    os.environ[{name!r}] = f"http://127.0.0.1:{{server.getsockname()[1]}}"
    url = "http://192.0.2.1/" if "http_proxy" == {name.lower()!r} else "https://192.0.2.1/"
    def fetch():
        try: urllib.request.build_opener().open(url, timeout=5)
        except OSError: pass
    with egress.guard():
        fetch()
        print(len(asked), len(egress.report()["blocked"]))
    if {name!r} != "ALL_PROXY":  # which urllib does not know
        fetch()
        print(len(asked))
"""
    assert python(code).split() in (["0", "1", "1"], ["0", "1"])


# The guard of the tests themselves, in conftest: it does stop what it is there to stop.


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "example.invalid"])
def test_a_test_that_connects_out_is_refused(host):
    with pytest.raises(PermissionError, match=host):
        socket.create_connection((host, 9), timeout=1)


def test_a_bare_connect_of_a_test_is_refused():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        pytest.raises(PermissionError, match=r"192\.0\.2\.1"),
    ):
        tcp.connect(("192.0.2.1", 9))


def test_a_test_that_sends_out_is_refused():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        pytest.raises(PermissionError, match=r"192\.0\.2\.1"),
    ):
        udp.sendto(b"x", ("192.0.2.1", 9))


def test_loopback_is_open_to_tests():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as client,
    ):
        assert client.getpeername() == server.getsockname()


def test_a_report_cut_short_counts_as_an_attempt():
    """As a child leaves it that is killed while it writes."""
    code = """
with egress.guard():
    with open(egress._state.log, "a") as log: log.write('{"what": "connect", "to"\\n')
    print(egress.report()["blocked"][0]["what"])
"""
    assert python(code) == "unreadable report\n"

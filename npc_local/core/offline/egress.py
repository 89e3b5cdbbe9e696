"""The egress guard: an audit hook that refuses every attempt to leave this machine, and says so.

Loopback and local sockets stay open. It works in this process and, through the `sitecustomize`
in `child/`, in Python processes started from it, whose attempts come back by a log file. An audit
hook cannot be taken off, so it looks at a switch: off, unless a `guard` is open. What it cannot
see is in docs/guides/air_gap.md. Standard library only, and nothing of npc_local: children of
another Python load this file by its path.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import urlsplit

CHILD_HOME = Path(__file__).resolve().parent / "child"  # of the sitecustomize for children
LOG = "NPC_LOCAL_EGRESS_LOG"  # the variable that arms a child, and tells it where to report
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "ws_proxy", "wss_proxy")

_CONNECT = {"socket.connect": "connect", "socket.sendto": "send", "socket.sendmsg": "send"}
_LOOK_UP = {
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
}
_EVENTS = frozenset(_LOOK_UP.union(_CONNECT))
# Methods of sockets that take an address: where among the arguments, and what for.
_TAKES_ADDRESS = {
    "bind": (0, "look up"),
    "connect": (0, "connect"),
    "connect_ex": (0, "connect"),
    "sendto": (1, "send"),
    "sendmsg": (3, "send"),
}
_INTERNET = {int(socket.AF_INET), int(socket.AF_INET6)}
# Other address families that end inside this machine's kernel; what is not named is refused.
_LOCAL = {
    int(getattr(socket, name))
    for name in ("AF_UNIX", "AF_NETLINK", "AF_ALG", "AF_SYSTEM", "AF_UNSPEC")
    if hasattr(socket, name)
}
# Whose frames do not tell who wanted the connection.
_PLUMBING = {"asyncio", "concurrent", "http", "selectors", "socket", "ssl", "threading", "urllib"}
_FRAMES = 3


class EgressRefused(PermissionError):
    """The guard refused an attempt to leave this machine.

    An OSError, so that a library that would go on without a network goes on.
    """


class _State:
    """What the hook looks at, and what it found. One for each process."""

    def __init__(self) -> None:
        self.installed = False
        self.armed = 0  # how many guards are open
        self.environment: dict[str, str] = {}  # of before the first of them
        self.blocked: list[dict[str, Any]] = []
        self.granted: list[str] = []  # host:port, every one since then
        self.permits: list[tuple[str, int]] = []  # those in force now
        self.owner = 0  # the process that they were given to
        self.addresses: set[tuple[str, int]] = set()  # what permitted hosts resolved to
        self.log: str | None = None
        self.keeper: int | None = None  # the process that made the log; others write to it
        self.resolver: Callable[..., list[Any]] | None = None  # what ours asks, once there is one
        self.lock = threading.RLock()


_state = _State()


@contextmanager
def guard() -> Iterator[None]:
    """Refuse and record, while open, every attempt of this process to leave the machine.

    It holds for all threads, and for Python processes started meanwhile with this environment,
    for as long as they live. Proxy variables are taken out of the environment, since a proxy on
    this machine would carry requests out of it. May be nested; `report` tells what happened.
    """
    with _state.lock:
        if not _state.armed:
            _state.blocked.clear()
            _state.granted = sorted({_endpoint(*permit) for permit in _state.permits})
            _empty_log()
            _state.environment = dict(os.environ)
            guard_child(os.environ)
            sys.path.insert(0, str(CHILD_HOME))  # some libraries hand it on as PYTHONPATH
        _install()
        _state.armed += 1
    try:
        yield
    finally:
        with _state.lock:
            _state.armed -= 1
            if not _state.armed:
                with suppress(ValueError):
                    sys.path.remove(str(CHILD_HOME))
                _restore(os.environ, _state.environment)


def guard_child(environment: MutableMapping[str, str]) -> None:
    """Change the environment of a child so that the guard is on in it, if it is a Python."""
    for name in _proxies(environment):
        del environment[name]
    environment["NO_PROXY"] = environment["no_proxy"] = "*"
    environment[LOG] = _log()
    path = environment.get("PYTHONPATH", "").split(os.pathsep)
    others = [entry for entry in path if entry and entry != str(CHILD_HOME)]
    environment["PYTHONPATH"] = os.pathsep.join([str(CHILD_HOME), *others])


def _restore(environment: MutableMapping[str, str], before: Mapping[str, str]) -> None:
    """Undo `guard_child`, leaving alone what else has changed meanwhile."""
    for name in (LOG, "PYTHONPATH", "NO_PROXY", "no_proxy", *_proxies(before)):
        environment.pop(name, None)
        if name in before:
            environment[name] = before[name]


def arm_child(log: str) -> None:
    """Turn the guard on for all of this process, which a guarded one started."""
    _state.log = log
    _state.armed += 1
    _install()


@contextmanager
def permit(url: str) -> Iterator[None]:
    """Let this process, and no child of it, reach the host and port of `url` while open."""
    parts = urlsplit(url)
    host, port = _plain(parts.hostname or ""), parts.port or (80 if parts.scheme == "http" else 443)
    if _is_loopback(host):
        yield
        return
    with _state.lock:
        _state.permits.append((host, port))
        _state.owner = os.getpid()
        if _endpoint(host, port) not in _state.granted:
            _state.granted.append(_endpoint(host, port))
        _follow_lookups()
    try:
        yield
    finally:
        with _state.lock:
            _state.permits.remove((host, port))
            if not _state.permits:
                _state.addresses.clear()


def report() -> dict[str, Any]:
    """Return, as plain data, what was permitted and what was blocked since the guard was opened.

    `blocked` holds, in the order of time for each process: what (connect, send, look up), to
    whom, from where in the code (innermost first) and in which process ("child" or "main").
    """
    with _state.lock:
        blocked = list(_state.blocked)
        if _state.log is not None:
            with suppress(OSError, ValueError):
                blocked += map(_attempt, Path(_state.log).read_text("utf-8").splitlines())
        return {
            "guarded": _state.armed > 0,
            "allowed": list(_state.granted),
            "blocked": blocked,
        }


def _attempt(line: str) -> dict[str, Any]:
    """Return an attempt that a child reported; one cut short counts too."""
    try:
        attempt: dict[str, Any] = json.loads(line)
    except ValueError:
        return {"what": "unreadable report", "to": "", "from": [line[:200]], "process": "child"}
    return attempt


def _install() -> None:
    """Add the hook, once in a process, and what comes before it."""
    with _state.lock:
        if not _state.installed:
            sys.addaudithook(_hook)
            for name in _TAKES_ADDRESS:
                _look_first(name)
            _state.installed = True


def _look_first(name: str) -> None:
    """Have a method of sockets look at the host it is given, if that is a name.

    The method itself asks for the address of a name before it raises an audit event.
    """
    plain: Callable[..., Any] = getattr(socket.socket, name)
    position, what = _TAKES_ADDRESS[name]

    @functools.wraps(plain)
    def method(self: socket.socket, *args: Any) -> Any:
        if _state.armed and len(args) > position and int(self.family) in _INTERNET:
            address = args[-1] if name == "sendto" else args[position]
            if isinstance(address, tuple) and len(address) > 1:
                host = _plain(address[0])
                if host and host != "<broadcast>" and not _may_look_up(host):
                    _refuse(what, _endpoint(host, address[1]))
        return plain(self, *args)

    setattr(socket.socket, name, method)


def _owns_permits() -> bool:
    """Whether permits are this process's: a forked child inherits memory, but not them."""
    return os.getpid() == _state.owner


def _may_look_up(host: str) -> bool:
    """Return whether the address of a host may be asked for; that of a number is itself."""
    known = _address(host) is not None or host == "localhost"
    return known or (_owns_permits() and any(host == one for one, _ in _state.permits))


def _hook(event: str, args: tuple[Any, ...]) -> None:
    """Refuse what leaves. Called for every audited event, so the common case comes first."""
    if event not in _EVENTS or not _state.armed:
        return
    if event in _LOOK_UP:
        found = args[0][0] if event == "socket.getnameinfo" else args[0]
        host = _plain(found)
        backwards = event in {"socket.gethostbyaddr", "socket.getnameinfo"} and _address(host)
        if host == "" or (_is_loopback(host) if backwards else _may_look_up(host)):
            return
        _refuse("look up", host)
    connection, address = args[0], args[1]
    if address is None or int(connection.family) in _LOCAL:
        return  # None: a message over a socket that is connected, which was looked at then
    if int(connection.family) not in _INTERNET or not isinstance(address, tuple):
        _refuse(_CONNECT[event], f"{address!r} (family {int(connection.family)})")
    host, port = _plain(address[0]), address[1]
    if _is_loopback(host):
        return
    if _owns_permits() and ((host, port) in _state.permits or (host, port) in _state.addresses):
        return
    _refuse(_CONNECT[event], _endpoint(host, port))


def _refuse(what: str, to: str) -> NoReturn:
    """Record an attempt and raise."""
    attempt: dict[str, Any] = {"what": what, "to": to, "from": _callers(sys._getframe(2))}
    if _state.log is None or _state.keeper == os.getpid():
        with _state.lock:
            _state.blocked.append(attempt | {"process": "main"})
    else:
        line = json.dumps(attempt | {"process": "child"}) + "\n"
        with suppress(OSError):  # refused all the same
            descriptor = os.open(_state.log, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
    raise EgressRefused(
        errno.EACCES,
        f"npc-local's egress guard refused to {what} {to}: nothing may leave this machine "
        "(see docs/guides/air_gap.md)",
    )


def _callers(frame: FrameType | None) -> list[str]:
    """Return module:line of the innermost frames outside the socket library."""
    every: list[str] = []
    telling: list[str] = []
    while frame is not None and len(telling) < _FRAMES:
        module = str(frame.f_globals.get("__name__", "?"))
        every.append(f"{module}:{frame.f_lineno}")
        if module.partition(".")[0] not in _PLUMBING and module != __name__:
            telling.append(every[-1])
        frame = frame.f_back
    return telling or every[:_FRAMES]


def _plain(host: object) -> str:
    """Return a host as it is compared: text, lower case, without the dot of the root."""
    if host is None:
        return ""
    text = host.decode("utf-8", "replace") if isinstance(host, bytes | bytearray) else str(host)
    return text.lower().rstrip(".")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a numeric host as an address, an IPv4 one in IPv6 clothes as IPv4; None: a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_loopback(host: str) -> bool:
    """Return whether a host is this one, told without asking anybody."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _endpoint(host: str, port: object) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _proxies(environment: Mapping[str, str]) -> list[str]:
    """Name the proxy variables that are set, in either case."""
    return [name for name in environment if name.lower() in PROXIES]


def _follow_lookups() -> None:
    """Have the addresses that permitted hosts resolve to remembered as permitted, from now on.

    An audit hook sees questions, not answers. Whoever goes around `socket.getaddrinfo` gets an
    address that is not known here and is refused.
    """
    if _state.resolver is not None:
        return
    resolver = _state.resolver = socket.getaddrinfo

    def remembering(host: Any, *args: Any, **options: Any) -> list[Any]:
        answers = resolver(host, *args, **options)
        with _state.lock:
            ports = [port for permitted, port in _state.permits if permitted == _plain(host)]
            for answer in answers:
                _state.addresses.update((_plain(answer[4][0]), port) for port in ports)
        return answers

    socket.getaddrinfo = remembering


def _log() -> str:
    """Return the file that children report to, made by the first who needs it."""
    with _state.lock:
        if _state.log is None:
            _state.log = _unnamed_file() or _temporary_file()
            _state.keeper = os.getpid()
        return _state.log


def _unnamed_file() -> str | None:
    """Return a file in memory that goes with this process, however it ends; None: not here."""
    try:
        descriptor = os.memfd_create("npc-local-egress")
    except (AttributeError, OSError):  # Linux alone has it
        return None
    path = f"/proc/{os.getpid()}/fd/{descriptor}"
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
    except OSError:  # no /proc
        os.close(descriptor)
        return None
    return path


def _temporary_file() -> str:
    import atexit
    import tempfile

    descriptor, path = tempfile.mkstemp(prefix="npc-local-egress-", suffix=".jsonl")
    os.close(descriptor)
    atexit.register(_remove, path, os.getpid())
    return path


def _remove(path: str, keeper: int) -> None:
    if os.getpid() == keeper:
        Path(path).unlink(missing_ok=True)


def _empty_log() -> None:
    if _state.log is not None and _state.keeper == os.getpid():
        with suppress(OSError):
            os.truncate(_state.log, 0)

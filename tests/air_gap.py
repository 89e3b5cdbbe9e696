"""Proof from outside Python that a command does not leave this machine: two ways, Linux only.

    python tests/air_gap.py sealed COMMAND...   in a network namespace that has loopback alone
    python tests/air_gap.py traced COMMAND...   under strace; what left is listed, exit code 1

Standard library only. Needs `unshare` (util-linux) and `strace`.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

CALLS = ("connect", "sendto", "sendmsg", "sendmmsg")
ELSEWHERE = "192.0.2.1"  # reserved for documentation: nobody has it
_LOCAL = {"AF_UNIX", "AF_LOCAL", "AF_NETLINK", "AF_UNSPEC"}
_FAMILY = re.compile(r"sa_family=(\w+)")
_ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
_POINTER = re.compile(r"\bconnect\(\d+, 0x")  # an address that strace could not read


def sealing(command: Iterable[str]) -> list[str]:
    """Return the command line that runs `command` with loopback alone.

    Raises:
        LookupError: this machine cannot make a network namespace.
    """
    unshare = shutil.which("unshare")
    if unshare is not None:
        for flags in ("-rn", "-n"):
            if subprocess.run([unshare, flags, "true"], capture_output=True).returncode == 0:
                return [unshare, flags, sys.executable, __file__, "_inside", *command]
    raise LookupError("no network namespace can be made here (unshare -rn, or -n as root)")


def tracing(command: Iterable[str], trace: Path) -> list[str]:
    """Return the command line that runs `command`, its children too, and writes a trace.

    Raises:
        LookupError: strace is missing.
    """
    strace = shutil.which("strace")
    if strace is None:
        raise LookupError("strace is missing")
    calls = ",".join(("execve", *CALLS))
    return [strace, "-f", "--seccomp-bpf", "-e", f"trace={calls}", "-o", str(trace), *command]


def departures(trace: str) -> list[str]:
    """Return the lines of a trace that try to reach anything but this machine.

    Raises:
        ValueError: the trace shows no program being run, so it proves nothing.
    """
    if "execve(" not in trace:
        raise ValueError("the trace is empty")
    return [line for line in trace.splitlines() if _departs(line)]


def _departs(line: str) -> bool:
    """Return whether a line names an address beyond this machine, or one that cannot be read."""
    if not any(f" {call}(" in f" {line}" for call in CALLS):
        return False
    if _POINTER.search(line):
        return True
    for family in _FAMILY.finditer(line):
        if family[1] in _LOCAL:
            continue
        address = _ADDRESS.search(line, family.end())
        if address is None or not _is_loopback(address[1] or address[2]):
            return True
    return False


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _inside(command: list[str]) -> None:
    """Bring loopback up, make sure that there is nothing else, and become the command."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        set_flags, up_and_running = 0x8914, 0x1 | 0x40
        fcntl.ioctl(udp, set_flags, struct.pack("16sH14x", b"lo", up_and_running))
        if udp.connect_ex((ELSEWHERE, 9)) != errno.ENETUNREACH:
            sys.exit("this network namespace is not closed")
        udp.connect(("127.0.0.1", 9))
    os.execvp(command[0], command)


def _traced(command: list[str]) -> int:
    """Run a command under strace and print what left; return an exit code."""
    with tempfile.TemporaryDirectory() as directory:
        trace = Path(directory, "trace")
        code = subprocess.run(tracing(command, trace)).returncode
        found = departures(trace.read_text(errors="replace"))
    print(*found, f"{len(found)} attempts to leave this machine", sep="\n", file=sys.stderr)
    return code or bool(found)


def main(arguments: list[str]) -> int:
    """Run one of the three ways."""
    if len(arguments) < 2 or arguments[0] not in {"sealed", "traced", "_inside"}:
        sys.exit(__doc__)
    how, *command = arguments
    if how == "_inside":
        _inside(command)
    if how == "sealed":
        return subprocess.run(sealing(command)).returncode
    return _traced(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What every test gets: one thread, no way out of this machine, and no say for its speed."""

from __future__ import annotations

import ipaddress
import os
import sys

import hypothesis

# Before torch is imported, here and in children. Models of tests are tiny: a second thread only
# spins beside the first, and takes the core that another process of the suite could use.
for _library in ("OMP", "MKL", "OPENBLAS"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile(
    "npc-local",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("npc-local")

_TO_ADDRESS = {"socket.connect", "socket.sendto"}
_LOOK_UP = {"socket.getaddrinfo", "socket.gethostbyname"}


def _loopback(host: object) -> bool:
    if host in {None, "", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def _forbid_egress(event: str, args: tuple[object, ...]) -> None:
    """Refuse to look up, connect or send anywhere but loopback. Unix sockets are local anyway."""
    if event in _LOOK_UP:
        host = args[0]
    elif event in _TO_ADDRESS and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode()
    if not _loopback(host):
        raise PermissionError(f"a test tried to reach {host}")


# Unlike a patched socket class, an audit hook also sees sockets opened by other libraries'
# own names for it, and nothing can take it off again.
sys.addaudithook(_forbid_egress)

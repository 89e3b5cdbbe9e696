"""The switches that keep the libraries off the network, here and in the processes started here.

They are read when a library is imported, so `go_offline` comes before any heavy import; in a
program that imported huggingface_hub already, it switches that off at once. A switch asks a
library not to try; that nothing leaves all the same is left to `egress`, whose `guard` is offered
here too. Switches of a single program, such as vLLM's, are left to whoever starts it.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from npc_local.core.errors import ConfigError
from npc_local.core.offline.egress import LOG, PROXIES, guard, guard_child

__all__ = ["SWITCHES", "child_environment", "go_offline", "guard"]

SWITCHES = {
    # huggingface_hub; transformers, diffusers, tokenizers and datasets ask it.
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_XET": "1",  # its sockets are not Python's
    "DO_NOT_TRACK": "1",
    # transformers
    "TRANSFORMERS_OFFLINE": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "USE_HUB_KERNELS": "0",
    # torch.compile's shared caches
    "TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE": "0",
    "TORCHINDUCTOR_AUTOTUNE_REMOTE_CACHE": "0",
    "TORCHINDUCTOR_BUNDLED_AUTOTUNE_REMOTE_CACHE": "0",
    "TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE": "0",
    "TORCH_DYNAMO_AUTOMATIC_DYNAMIC_REMOTE_PGO": "0",
    # what may come along with a server
    "RAY_USAGE_STATS_ENABLED": "0",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
# Each names a machine to ask, or a program that asks one.
UNSET = (
    "TRITON_REMOTE_CACHE_BACKEND",
    "TORCHINDUCTOR_REDIS_URL",
    "TORCHINDUCTOR_REDIS_HOST",
    "TORCHINDUCTOR_REDIS_PORT",
)
# What a child gets of our environment: where things are and how the hardware is to be used.
# No token, no key, no proxy.
ALLOWED = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "TEMP",
        "TMP",
        "TERM",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "CC",
        "CXX",
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
        "ROCM_PATH",
        "ROCR_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES",
        "ZE_AFFINITY_MASK",
        "OPENBLAS_NUM_THREADS",
        "PYTORCH_ALLOC_CONF",
        "PYTORCH_CUDA_ALLOC_CONF",
        "HF_HOME",
        "TORCH_HOME",
        "TORCHINDUCTOR_CACHE_DIR",
        "TRITON_CACHE_DIR",
        "MPLCONFIGDIR",
        "PYTHONHASHSEED",
        "PYTHONDONTWRITEBYTECODE",
    }
)
ALLOWED_PREFIXES = ("LC_", "CUDA_", "XDG_", "OMP_", "MKL_")
# Caches that their libraries put into the home directory, which may be read-only.
_CACHES = {"MPLCONFIGDIR": "matplotlib", "TRITON_CACHE_DIR": "triton"}


def go_offline() -> None:
    """Set every switch, overriding what the environment says, for the rest of this process."""
    _switch_off(os.environ)
    _place_caches(os.environ)
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None:
        # What all requests of the hub's client look at; it then names HF_HUB_OFFLINE as the reason.
        hub.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
        hub.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child process: what `ALLOWED` lets through, `extra`, switches.

    The egress guard is on in a child that is a Python, whether or not it is on here; what it
    blocks is in `egress.report`.

    Raises:
        ConfigError: `extra` would undo a switch, or name a proxy.
    """
    for name, value in extra.items():
        forced = SWITCHES.get(name, value)
        if value != forced or name in UNSET or name == LOG or name.lower() in PROXIES:
            raise ConfigError(
                f"environment: {name} = {value!r} would let a process reach the network; "
                "leave it out"
            )
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in ALLOWED or name.startswith(ALLOWED_PREFIXES)
    }
    environment |= extra
    _switch_off(environment)
    _place_caches(environment)
    guard_child(environment)
    return environment


def _switch_off(environment: MutableMapping[str, str]) -> None:
    environment.update(SWITCHES)
    for name in UNSET:
        environment.pop(name, None)


def _place_caches(environment: MutableMapping[str, str]) -> None:
    """Name a directory for the caches of a read-only home, removed when this process ends."""
    try:
        home = Path(environment.get("HOME") or Path.home())
    except RuntimeError:  # a user without a home, as in a container
        home = None
    if home is not None and _can_write(home):
        return
    for name, folder in _CACHES.items():
        if name not in environment:
            environment[name] = str(_temporary() / folder)


def _can_write(directory: Path) -> bool:
    """Return whether a file can be made in a directory; only trying tells."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


_made: list[Path] = []
_PREFIX = "npc-local-caches-"


def _temporary() -> Path:
    """Return the one directory of this process for such caches.

    It is locked as long as its maker lives: what is left of one that was killed is removed by the
    next who needs such a directory.
    """
    if not _made:
        for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            if _lock(path) is not None:
                shutil.rmtree(path, ignore_errors=True)
        _made.append(_locked_directory())
        atexit.register(_remove, _made[0], os.getpid())
    return _made[0]


def _locked_directory() -> Path:
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        if _lock(path) is not None:  # else another process has just taken it for an old one
            return path


def _lock(path: Path) -> int | None:
    """Lock a directory until this process ends; return None where it is locked or gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.stat()
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove(directory: Path, maker: int) -> None:
    if os.getpid() == maker:
        shutil.rmtree(directory, ignore_errors=True)

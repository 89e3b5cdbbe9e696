"""npc-local: a prompt goes in, an image that matches it comes out, all on this machine.

Public names only, each imported when it is first used: `import npc_local` itself stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from npc_local.core.errors import (
    BackendError,
    ConfigError,
    DeviceLostError,
    GeneratorError,
    ModelFilesError,
    NpcError,
    PromptError,
    StorageError,
)
from npc_local.core.versions import __version__

if TYPE_CHECKING:
    from npc_local.core.config.load import load_config
    from npc_local.core.records import Correction
    from npc_local.generator import PipelineGenerator, early_negative
    from npc_local.run.api import Session, acorrect, correct
    from npc_local.run.api import open as open


# Without `open`: who imports * means to keep Python's own.
__all__ = [
    "BackendError",
    "ConfigError",
    "Correction",
    "DeviceLostError",
    "GeneratorError",
    "ModelFilesError",
    "NpcError",
    "PipelineGenerator",
    "PromptError",
    "Session",
    "StorageError",
    "__version__",
    "acorrect",
    "correct",
    "early_negative",
    "load_config",
]

_HOMES = {
    "Correction": "npc_local.core.records",
    "acorrect": "npc_local.run.api",
    "PipelineGenerator": "npc_local.generator",
    "correct": "npc_local.run.api",
    "early_negative": "npc_local.generator",
    "load_config": "npc_local.core.config.load",
    "open": "npc_local.run.api",
    "Session": "npc_local.run.api",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, those not imported yet included."""
    return sorted([*globals(), *_HOMES])

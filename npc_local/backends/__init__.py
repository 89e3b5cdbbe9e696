"""Agents behind one door: from an entry of models.toml to an open `Backend`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from npc_local.backends.base import Backend
    from npc_local.core.config.settings import BackendSettings


def open_backend(
    name: str, settings: BackendSettings, *, log: Path | None = None, sees: bool = True
) -> Backend:
    """Open `[backends.NAME]`, importing only what its kind needs.

    Args:
        name: the entry's name.
        settings: the entry.
        log: where a server that is started writes its log; left out, nowhere.
        sees: whether it is asked about images, so that its check sends one.

    Raises:
        ConfigError: the entry points at something that cannot be used.
    """
    if settings.kind == "shapes":
        from npc_local.shapes.backend import ShapesBackend

        return ShapesBackend(name)
    if settings.kind == "scripted":
        from npc_local.backends.scripted import ScriptedBackend

        return ScriptedBackend.from_file(name, settings.replies)
    from npc_local.backends.chat import ChatBackend

    if settings.server is None:
        return ChatBackend(name, settings, sees=sees)
    from npc_local.backends.vllm.server import VllmServer

    return ChatBackend(name, settings, server=VllmServer(name, settings, log), sees=sees)

"""Agents behind one door: from an entry of models.toml to an open `Backend`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from npc_local.backends.base import Backend
    from npc_local.settings import BackendSettings


def open_backend(name: str, settings: BackendSettings) -> Backend:
    """Open `[backends.NAME]`, importing only what its kind needs.

    Raises:
        ConfigError: the entry points at something that cannot be used.
    """
    if settings.kind == "shapes":
        from npc_local.shapes.backend import ShapesBackend

        return ShapesBackend(name)
    from npc_local.backends.scripted import ScriptedBackend

    return ScriptedBackend.from_file(name, settings.replies)

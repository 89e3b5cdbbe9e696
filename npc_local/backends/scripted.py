"""A backend that replays replies from a file: for tests, demos and failures on demand.

It judges nothing: replies go out as they were written, and `agents` validates them like any other.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from npc_local.backends.base import Reply, Request, Role
from npc_local.core.errors import BackendError, ConfigError
from npc_local.core.files import paths
from npc_local.core.hashing import digest


class ScriptedBackend:
    """Replays one queue of replies a role, in order of arrival; `requests` keeps what was asked.

    A reply is the data itself, or `{"error": "..."}`, which raises `BackendError`.
    """

    def __init__(self, name: str, replies: Mapping[str, Sequence[dict[str, Any]]]) -> None:
        """Take the replies, role -> list.

        Raises:
            ConfigError: an unknown role, or something other than a list of objects under one.
        """
        for role, queue in replies.items():
            if role not in get_args(Role):
                known = ", ".join(get_args(Role))
                raise ConfigError(f"backend {name}: unknown role {role!r}; known: {known}")
            if not isinstance(queue, list | tuple) or not all(
                isinstance(reply, dict) for reply in queue
            ):
                raise ConfigError(f"backend {name}: {role}: must be a list of objects")
        self.name = name
        self.requests: list[Request[Any]] = []
        self._queues = {role: deque(queue) for role, queue in replies.items()}
        # Of the text, since a script may hold NaN.
        self._fingerprint = f"scripted:{digest(json.dumps(replies, sort_keys=True))}"

    @classmethod
    def from_file(cls, name: str, path: Path) -> ScriptedBackend:
        """Read the replies from a JSON file.

        Raises:
            ConfigError: the file cannot be read, is not JSON, or does not map roles to replies.
        """
        try:
            replies = json.loads(paths.read(path, ConfigError))
        except ConfigError as error:
            raise ConfigError(f"backend {name}: {error}") from error
        except ValueError as error:
            raise ConfigError(f"backend {name}: {path}: not JSON: {error}") from error
        if not isinstance(replies, dict):
            raise ConfigError(f"backend {name}: {path}: must map roles to lists of replies")
        return cls(name, replies)

    async def complete(self, request: Request[Any]) -> Reply:
        """Return the next reply; raise `BackendError` if that is an error or none is left."""
        self.requests.append(request)
        queue = self._queues.get(request.role)
        if not queue:
            raise BackendError(f"backend {self.name}: {request.role}: no scripted reply is left")
        data = queue.popleft()
        if data.keys() == {"error"}:
            raise BackendError(f"backend {self.name}: {request.role}: {data['error']}")
        return Reply(data=data, raw=json.dumps(data))

    def accepts(self, prompt: str) -> None:
        """Take any prompt: the answers are fixed."""

    async def check(self) -> None:
        """Nothing can be down: the replies are in memory."""

    def fingerprint(self) -> str:
        """Return a digest of the whole script."""
        return self._fingerprint

    async def aclose(self) -> None:
        """Nothing is held."""

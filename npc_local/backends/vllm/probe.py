"""What a vLLM server of ours is asked by its keeper: which models it serves, to sleep, to wake.

Each exchange is bounded in time and tried once; what to do about a fault is `server`'s matter, and
whether the model answers questions `chat`'s.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from npc_local.backends.http import Answer, ConnectionFault, Wire, shown
from npc_local.core.errors import BackendError

_LOOK = 5.0  # seconds that a look at the list of models may take


class Fault(Exception):
    """What is wrong with a server, as the end of a sentence about it."""


class Probe:
    """Talks to the server at one address."""

    def __init__(self, root: str, timeout: float) -> None:
        """Take the address without /v1, and the seconds that it may take to sleep or to wake."""
        self._root = root
        self._timeout = timeout
        self._wire = Wire()

    async def models(self) -> list[str]:
        """Return the names that models are served by; none while it does not answer.

        Raises:
            Fault: it redirects, or answers without end.
        """
        try:
            async with asyncio.timeout(_LOOK):
                answer = await self._send("GET", "/v1/models")
        except (ConnectionFault, TimeoutError):
            return []
        listed = _object(answer).get("data") if answer.status == 200 else None
        entries = listed if isinstance(listed, list) else []
        return [str(entry.get("id")) for entry in entries if isinstance(entry, dict)]

    async def sleep(self) -> None:
        """Have it release the GPU's memory, weights kept in main memory (level 1).

        Raises:
            Fault: it does not, or says so not in time.
        """
        await self._call("POST", "/sleep?level=1")
        if (await self._call("GET", "/is_sleeping")).get("is_sleeping") is not True:
            raise Fault("does not sleep")

    async def wake(self) -> None:
        """Have it take the GPU's memory again; whether that worked only an answer tells.

        Raises:
            Fault: it says that it did not, or nothing in time.
        """
        await self._call("POST", "/wake_up")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._wire.aclose()

    async def _call(self, method: str, path: str) -> dict[str, Any]:
        """Return the object that is answered with status 200 in time."""
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                answer = await self._send(method, path)
        except ConnectionFault as error:
            raise Fault(f"does not answer {path}: {error}") from error
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise Fault(f"does not answer {path} within {self._timeout:g} s") from error
        if answer.status != 200:
            raise Fault(f"answers {path} with HTTP {answer.status}: {shown(answer.body)}")
        return _object(answer)

    async def _send(self, method: str, path: str) -> Answer:
        try:
            return await self._wire.send(method, self._root + path)
        except BackendError as error:
            raise Fault(str(error)) from error


def _object(answer: Answer) -> dict[str, Any]:
    """Return the object in an answer, or an empty one."""
    try:
        data = json.loads(answer.body)
    except (ValueError, RecursionError):
        data = None
    return data if isinstance(data, dict) else {}

"""What a vLLM server of ours is asked by its keeper: which models, one test question, sleep, wake.

Each exchange is bounded in time and tried once; what to do about a fault is `vllm_server`'s matter.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from PIL import Image

from npc_local.backends import images, schemas
from npc_local.backends.canary import Seen
from npc_local.backends.http import Answer, ConnectionFault, Wire, shown
from npc_local.core.config.settings import ChatBackendSettings
from npc_local.core.errors import BackendError
from npc_local.core.strict_json import read_object

_LOOK = 5.0  # seconds that a look at the list of models may take


class Fault(Exception):
    """What is wrong with a server, as the end of a sentence about it."""


class Probe:
    """Talks to the server at one address."""

    def __init__(self, root: str, settings: ChatBackendSettings) -> None:
        """Take the address without /v1, and the backend's entry."""
        self._root = root
        self._settings = settings
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

    async def canary(self, *, sees: bool) -> None:
        """Have it answer a tiny question by a schema, about an image if the model takes any.

        Raises:
            Fault: no valid answer within `timeout` seconds.
        """
        content: list[dict[str, Any]] = [{"type": "text", "text": "Is there an image?"}]
        if sees:
            url = images.data_url(Image.new("RGB", (56, 56), "red"), self._settings.max_pixels)
            content.insert(0, {"type": "image_url", "image_url": {"url": url}})
        schema = {"name": "canary", "strict": True, "schema": schemas.json_schema(Seen)}
        question = {
            "model": self._settings.model,
            "messages": [{"role": "user", "content": content}],
            "response_format": {"type": "json_schema", "json_schema": schema},
            "max_tokens": 64,
            "temperature": 0,
            "seed": 0,
        }
        body = question | self._settings.extra_body
        choices = (await self._call("POST", "/v1/chat/completions", body)).get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        reason = choice.get("finish_reason") if isinstance(choice, dict) else "missing"
        message = choice.get("message") if isinstance(choice, dict) else None
        text = message.get("content") if isinstance(message, dict) else None
        try:
            if reason != "stop" or not isinstance(text, str):
                raise ValueError(f"finish_reason {reason}")
            schemas.validate(Seen, read_object(text))
        except ValueError as error:
            raise Fault(
                f"gives no valid answer to a test question ({error}): {shown(str(text))}"
            ) from error

    async def sleep(self) -> None:
        """Have it release the GPU's memory, weights kept in main memory (level 1).

        Raises:
            Fault: it does not, or says so not within `timeout` seconds.
        """
        await self._call("POST", "/sleep?level=1")
        if (await self._call("GET", "/is_sleeping")).get("is_sleeping") is not True:
            raise Fault("does not sleep")

    async def wake(self) -> None:
        """Have it take the GPU's memory again; whether that worked only `canary` tells.

        Raises:
            Fault: it says that it did not, or nothing within `timeout` seconds.
        """
        await self._call("POST", "/wake_up")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._wire.aclose()

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the object that is answered with status 200 within `timeout` seconds."""
        limit = asyncio.timeout(self._settings.timeout)
        try:
            async with limit:
                answer = await self._send(method, path, body)
        except ConnectionFault as error:
            raise Fault(f"does not answer {path}: {error}") from error
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise Fault(f"does not answer {path} within {self._settings.timeout:g} s") from error
        if answer.status != 200:
            raise Fault(f"answers {path} with HTTP {answer.status}: {shown(answer.body)}")
        return _object(answer)

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        try:
            return await self._wire.send(method, self._root + path, body)
        except BackendError as error:
            raise Fault(str(error)) from error


def _object(answer: Answer) -> dict[str, Any]:
    """Return the object in an answer, or an empty one."""
    try:
        data = json.loads(answer.body)
    except (ValueError, RecursionError):
        data = None
    return data if isinstance(data, dict) else {}

"""Keeps what agents answered, word for word: one JSON line an answer, failures included."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from npc_local.backends.base import Backend, Reply, Request
from npc_local.core.errors import BackendError, StorageError


class RecordedBackend:
    """A backend whose answers go to a file as well; a `Backend`."""

    def __init__(self, backend: Backend, path: Path) -> None:
        """Stand before `backend`; the file is made with the first answer."""
        self.name = backend.name
        self._backend = backend
        self._path = path

    async def complete(self, request: Request[Any]) -> Reply:
        """Answer, and keep the raw text, the usage and every try.

        Raises:
            StorageError: the file cannot be written.
        """
        begun = time.perf_counter()
        question = {"role": request.role, "fields": request.fields, "sampling": request.sampling}
        try:
            reply = await self._backend.complete(request)
        except BackendError as error:
            self._keep(question | {"error": str(error), "seconds": time.perf_counter() - begun})
            raise
        self._keep(
            question
            | {
                "raw": reply.raw,
                "finish_reason": reply.finish_reason,
                "usage": dict(reply.usage),
                "tries": [dataclasses.asdict(exchange) for exchange in reply.attempts],
                "seconds": time.perf_counter() - begun,
            }
        )
        return reply

    def _keep(self, line: dict[str, Any]) -> None:
        text = json.dumps(line, ensure_ascii=False, default=str)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(text + "\n")
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be written: {error.strerror}") from error

    def accepts(self, prompt: str) -> None:
        """Refuse what the backend refuses."""
        self._backend.accepts(prompt)

    async def check(self) -> None:
        """Check the backend."""
        await self._backend.check()

    def fingerprint(self) -> str:
        """Return the backend's own."""
        return self._backend.fingerprint()

    async def aclose(self) -> None:
        """Close the backend."""
        await self._backend.aclose()

"""A model behind OpenAI's chat protocol: vLLM on this machine, or OpenAI if the user allows it.

One request becomes one valid reply or one error, within `timeout` seconds of wall clock, whatever
the server does: hang, trickle, refuse, cut off, answer something else. Only an answer that the
server calls complete ("stop") and that fits the schema is a reply. How often is retried is decided
here and nowhere below:

- no connection, 429, 5xx: up to `retries` times, with exponential backoff or as Retry-After asks;
- an answer that does not fit the schema: twice, each with a new seed and a higher temperature
  (at temperature 0 the same question has the same answer);
- everything else: not at all.

What goes over the wire is `wire`'s matter, what an answer is worth `answers`', how servers differ
`dialects`', a server that we start ourselves `vllm_server`'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from npc_local.backends import answers, images, schemas
from npc_local.backends.base import Exchange, Reply, Request
from npc_local.backends.canary import canary
from npc_local.backends.dialects import DIALECTS
from npc_local.backends.http import (
    Answer,
    ConnectionFault,
    Wire,
    check_address,
    is_open_wire,
    read_key,
    shown,
)
from npc_local.core.config.settings import ChatBackendSettings
from npc_local.core.errors import BackendError, ConfigError
from npc_local.core.files.model_directory import hash_files
from npc_local.core.strict_json import read_object

log = logging.getLogger(__name__)

_VERSION = "1"  # rises when the same settings lead to other answers
_RESAMPLES = 2
_NEW_SEED = 1_000_003  # far from the next vote's seed
_WARMER = 0.3
_FIRST_BACKOFF, _LAST_BACKOFF = 0.5, 8.0  # seconds
_MAX_TOKENS = 1024
_OURS = {
    *("model", "messages", "response_format", "n", "stream"),
    *("max_tokens", "max_completion_tokens", "temperature", "seed"),
}


class Server(Protocol):
    """A server of ours behind a backend (`vllm_server`)."""

    async def start(self) -> str:
        """Start it; return its base URL, or raise `BackendError`."""
        ...

    async def ensure(self) -> str:
        """Return its base URL, started again if it died; raise `BackendError` if that is no use."""
        ...

    async def stop(self) -> None:
        """Stop it."""
        ...


@dataclass(slots=True)
class _Call:
    """One request under way: its deadline, what was tried, and how its faults are worded."""

    who: str
    deadline: asyncio.Timeout
    tried: list[Exchange] = field(default_factory=list)
    failures: int = 0

    def error(self, fault: object) -> BackendError:
        """Return the error that ends this call, earlier outcomes included."""
        earlier = [exchange.outcome for exchange in self.tried]
        trail = f" (before: {'; '.join(earlier)})" if earlier else ""
        return BackendError(f"{self.who}: {fault}{trail}")

    def note(self, outcome: str, sampling: tuple[int, float], answer: Answer | None) -> None:
        """Record one exchange."""
        seconds, body = (0.0, "") if answer is None else (answer.seconds, answer.body)
        self.tried.append(Exchange(outcome, *sampling, seconds=seconds, body=body))

    def left(self) -> float:
        """Return the seconds until the deadline."""
        when = self.deadline.when()
        return float("inf") if when is None else when - asyncio.get_running_loop().time()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock: a server that starts has a time limit of its own."""
        left = self.left()
        self.deadline.reschedule(None)
        try:
            yield
        finally:
            self.deadline.reschedule(asyncio.get_running_loop().time() + left)


class ChatBackend:
    """Serves agent roles from one model behind the chat protocol."""

    def __init__(
        self,
        name: str,
        settings: ChatBackendSettings,
        *,
        server: Server | None = None,
        sees: bool = True,
        on_status: Callable[[str], None] = log.warning,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take the settings; nothing is sent before `check` or `complete`.

        Args:
            name: the backend's name in models.toml.
            settings: its entry.
            server: who starts the server, in place of `settings.base_url`.
            sees: whether `check` sends an image; not for a model that only proposes.
            on_status: is told of retries, one line each.
            sleep: waits some seconds between retries.

        Raises:
            ConfigError: an address that may not be called, or an extra_body that takes over.
        """
        where = f"backends.{name}"
        if taken := _OURS & settings.extra_body.keys():
            raise ConfigError(f"{where}.extra_body: {', '.join(sorted(taken))} cannot be set here")
        try:
            json.dumps(settings.extra_body, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{where}.extra_body: {error}") from error
        if (settings.base_url is None) == (server is None):
            raise ConfigError(f"{where}: needs a base_url or a server")
        self._base_url = ""
        if settings.base_url is not None:
            try:
                self._base_url = check_address(
                    settings.base_url, allow_network=settings.allow_network
                )
            except ConfigError as error:
                raise ConfigError(f"{where}.{error}") from None
            if settings.api_key_env and is_open_wire(self._base_url):
                raise ConfigError(
                    f"{where}.base_url: {self._base_url} would carry the key unencrypted beyond "
                    "this machine; use https"
                )
        self.name = name
        self.settings = settings
        self.server = server
        self._started = self._closed = False
        self._starting = asyncio.Lock()
        self._dialect = DIALECTS[settings.kind]
        self._sees = sees
        self._on_status = on_status
        self._sleep = sleep
        self._wire: Wire | None = None
        self._served: dict[str, Any] = {}

    def accepts(self, prompt: str) -> None:
        """Take any prompt: what the model makes of it only the model knows."""

    async def complete(self, request: Request[Any]) -> Reply:
        """Answer one request.

        Raises:
            BackendError: no valid answer within the retries and `timeout` seconds.
        """
        return await self._ask(request, request.role)

    async def check(self) -> None:
        """Find the model among those served, then have it answer a tiny question about an image.

        Raises:
            BackendError: it is not served, or does not answer as it must.
        """
        async with self._call("check") as call:
            answer = await self._send(call, "GET", "/models", None, (0, 0.0))
            try:
                self._served = answers.find_model(answer.body, self.settings.model)
            except BackendError as error:
                raise call.error(error) from error
        await self._ask(canary(sees=self._sees), "check")

    def fingerprint(self) -> str:
        """Return a digest of what decides answers; after `check`, of the served model as well."""
        settings = self.settings.model_dump(
            mode="json",
            include={"kind", "model", "base_url", "temperature", "max_pixels", "image_factor"},
        )
        settings |= {"version": _VERSION, "extra": self.settings.extra_body}
        served = dict(self._served)
        server = self.settings.server
        if server is not None:
            settings["server"] = server.model_dump(
                mode="json", include={"dtype", "max_model_len", "arguments", "environment"}
            )
            # By content, not by place: other weights in the same directory are another model.
            settings["files"] = hash_files(server.model.parent, [server.model.name])
            served.pop("root", None)
        known = json.dumps([settings, served], sort_keys=True)
        return f"{self.settings.kind}:{hashlib.sha256(known.encode()).hexdigest()}"

    async def aclose(self) -> None:
        """Close connections, and stop the server if it is ours."""
        self._closed = True
        wire, self._wire = self._wire, None
        try:
            if wire is not None:
                await wire.aclose()
        finally:
            if self.server is not None:
                self._started = False
                await self.server.stop()

    async def _ask(self, request: Request[Any], label: str) -> Reply:
        """Ask until an answer fits the schema, at most three times."""
        schema = schemas.json_schema(request.shape)
        messages = await asyncio.to_thread(self._messages, request, label)
        usage: Counter[str] = Counter()
        async with self._call(label) as call:
            for again in range(_RESAMPLES + 1):
                sampling = self._sampling(request, again)
                body = self._body(request, schema, messages, sampling)
                answer = await self._send(call, "POST", "/chat/completions", body, sampling)
                try:
                    content, tokens = answers.read_completion(answer.body, _limit(request))
                except BackendError as error:
                    raise call.error(error) from error
                usage.update(tokens)
                try:
                    data = read_object(content)
                    schemas.validate(request.shape, data)
                except ValueError as error:
                    outcome = f"invalid reply: {shown(str(error))}: {shown(content)}"
                    call.note(outcome, sampling, answer)
                    self._on_status(f"{call.who}: {outcome}; asking again")
                    continue
                call.note("ok", sampling, answer)
                return Reply(data, content, dict(usage), answers.COMPLETE, tuple(call.tried))
            raise call.error(f"no valid reply in {_RESAMPLES + 1} tries")

    @asynccontextmanager
    async def _call(self, label: str) -> AsyncIterator[_Call]:
        """Open a call whose whole duration is bounded."""
        call = _Call(f"backend {self.name}: {label}", asyncio.timeout(self.settings.timeout))
        try:
            async with call.deadline:
                yield call
        except TimeoutError as error:
            if not call.deadline.expired():
                raise
            raise call.error(f"no answer within {self.settings.timeout:g} s (timeout)") from error

    async def _send(
        self,
        call: _Call,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        sampling: tuple[int, float],
    ) -> Answer:
        """Return the server's answer of status 200, after as many retries as are left."""
        while True:
            base, wire = await self._open(call)
            answer = None
            try:
                answer = await wire.send(method, base + path, body)
            except ConnectionFault as error:
                outcome = str(error)
            except BackendError as error:
                raise call.error(error) from error
            else:
                if answer.status == 200:
                    return answer
                outcome = f"HTTP {answer.status}: {shown(answer.body) or 'empty body'}"
                if answer.status != 429 and answer.status < 500:
                    hint = "; is base_url right? it mostly ends in /v1" * (answer.status == 404)
                    raise call.error(outcome + hint)
            asked = None if answer is None else answer.retry_after
            wait = min(_FIRST_BACKOFF * 2**call.failures, _LAST_BACKOFF) if asked is None else asked
            call.failures += 1
            if call.failures > self.settings.retries:
                raise call.error(f"{outcome}; {self.settings.retries} retries used up")
            if wait >= call.left():
                raise call.error(f"{outcome}; next try in {wait:g} s is beyond the timeout")
            call.note(outcome, sampling, answer)
            self._on_status(f"{call.who}: {outcome}; next try in {wait:g} s")
            await self._sleep(wait)

    async def _open(self, call: _Call) -> tuple[str, Wire]:
        """Return the base URL, of a server that is up if it is ours, and the wire to it."""
        if self._closed:  # between two tries: a server started now would have nobody to stop it
            raise call.error("it was closed meanwhile")
        if self._wire is None:
            variable = self.settings.api_key_env
            try:
                self._wire = Wire(None if variable is None else read_key(variable))
            except BackendError as error:
                raise call.error(error) from error
        if self.server is None:
            return self._base_url, self._wire
        with call.paused():
            async with self._starting:
                start = self.server.ensure if self._started else self.server.start
                base = await start()
                self._started = True
        return base.rstrip("/"), self._wire

    def _sampling(self, request: Request[Any], again: int) -> tuple[int, float]:
        """Return seed and temperature; the hotter of request and settings, so that votes differ."""
        seed = int(request.sampling.get("seed", 0)) + _NEW_SEED * again
        asked = max(self.settings.temperature, float(request.sampling.get("temperature", 0)))
        return seed, min(2.0, round(asked + _WARMER * again, 6))

    def _body(
        self,
        request: Request[Any],
        schema: Mapping[str, Any],
        messages: list[dict[str, Any]],
        sampling: tuple[int, float],
    ) -> dict[str, Any]:
        """Return the request as the dialect words it."""
        dialect = self._dialect
        seed, temperature = sampling
        body = {
            "model": self.settings.model,
            "messages": messages,
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": request.role,
                    "strict": True,
                    "schema": schemas.without(schema, dialect.withheld),
                },
            },
            dialect.max_tokens: _limit(request),
        }
        fixed = dialect.fixed_temperature
        if fixed is None or not fixed.match(self.settings.model):
            body["temperature"] = temperature
        if dialect.sends_seed:
            body["seed"] = seed
        return body | self.settings.extra_body

    def _messages(self, request: Request[Any], label: str) -> list[dict[str, Any]]:
        """Return system and user message, images first, as data."""
        try:
            most, patch = self.settings.max_pixels, self.settings.image_factor
            urls = [images.data_url(image, most, patch) for image in request.images]
        except (TypeError, ValueError, OSError) as error:
            raise BackendError(f"backend {self.name}: {label}: {error}") from error
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": url, **self._dialect.image}} for url in urls
        ]
        content.append({"type": "text", "text": request.user})
        return [
            {"role": "system", "content": request.system},
            {"role": "user", "content": content},
        ]


def _limit(request: Request[Any]) -> int:
    """Return the most tokens that an answer may have."""
    return int(request.sampling.get("max_tokens", _MAX_TOKENS))

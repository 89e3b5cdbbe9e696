"""A model behind OpenAI's chat protocol: vLLM on this machine, or OpenAI if the user allows it.

One request becomes one valid reply or one error, within `timeout` seconds of wall clock, whatever
the server does: hang, trickle, refuse, cut off, answer something else. Only an answer that the
server calls complete ("stop") and that fits the request's shape is a reply. How often is retried is
decided here and nowhere below:

- no connection, 429, 5xx: up to `retries` times, with exponential backoff or as Retry-After asks;
  503 is what servers say while they load a model: it is waited for, and counts for nothing;
- an answer that does not fit, is empty or was cut off: twice, each with a new seed and a higher
  temperature (at temperature 0 the same question has the same answer);
- no answer within `timeout`: not at all, unless the server does not answer a test question either.
  Then one of ours is started again, and the question asked anew; another's ends the run, which
  else would wait for every prompt that is left;
- everything else: not at all.

What goes over the wire is `http`'s matter, how a request is worded `dialects`', what an answer is
worth `answers`', a server that we start ourselves `vllm.server`'s.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

from npc_local.backends import answers, dialects
from npc_local.backends.base import Reply, Request
from npc_local.backends.call import Call, SilenceError
from npc_local.backends.canary import canary
from npc_local.backends.dialects import OURS, Sampling
from npc_local.backends.http import (
    Answer,
    ConnectionFault,
    Wire,
    check_address,
    is_open_wire,
    read_key,
    shown,
)
from npc_local.backends.schemas import validate
from npc_local.core.config.settings import ChatBackendSettings
from npc_local.core.errors import BackendError, BackendLostError, ConfigError
from npc_local.core.files.model_directory import hash_files
from npc_local.core.hashing import digest
from npc_local.core.strict_json import read_object

log = logging.getLogger(__name__)

_VERSION = "2"  # rises when the same settings lead to other answers
_RESAMPLES = 2
_FIRST_BACKOFF, _LAST_BACKOFF = 0.5, 8.0  # seconds
_LOADING = 503

Ready = Callable[[str], Awaitable[None]]
"""Asks the test question at a base URL; raises `BackendError`, with the bare fault, if it fails."""


class Server(Protocol):
    """A server of ours behind a backend (`vllm.server`)."""

    async def start(self) -> str:
        """Start it; return its base URL, or raise `BackendError`."""
        ...

    async def ensure(self) -> str:
        """Return its base URL, started again if it died; raise `BackendError` if that is no use."""
        ...

    async def revive(self) -> bool:
        """Ask it the test question after a silence; return whether it had to be started again."""
        ...

    async def stop(self) -> None:
        """Stop it."""
        ...


class ChatBackend:
    """Serves agent roles from one model behind the chat protocol."""

    def __init__(
        self,
        name: str,
        settings: ChatBackendSettings,
        *,
        server: Callable[[Ready], Server] | None = None,
        sees: bool = True,
        on_status: Callable[[str], None] = log.warning,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take the settings; nothing is sent before `check` or `complete`.

        Args:
            name: the backend's name in models.toml.
            settings: its entry.
            server: makes the server that is started in place of `settings.base_url`, given how to
                ask whether it is ready.
            sees: whether the test question has an image; not for a model that only proposes.
            on_status: is told of retries, one line each.
            sleep: waits some seconds between retries.

        Raises:
            ConfigError: an address that may not be called, or an extra_body that takes over.
        """
        self._base_url = _check_settings(name, settings, started=server is not None)
        self.name = name
        self.settings = settings
        self.server = None if server is None else server(self._ready)
        self._started = self._closed = False
        self._starting = asyncio.Lock()
        self._sees = sees
        self._on_status = on_status
        self._sleep = sleep
        self._wire: Wire | None = None
        self._served: dict[str, Any] = {}
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")  # when it was last known whether the server answers
        self._fault = ""  # what was wrong then

    def accepts(self, prompt: str) -> None:
        """Take any prompt: what the model makes of it only the model knows."""

    async def complete(self, request: Request[Any]) -> Reply:
        """Answer one request.

        Raises:
            BackendLostError: the server does not answer any more, whatever it is asked.
            BackendError: no valid answer within the retries and `timeout` seconds.
        """
        while True:
            try:
                return await self._ask(request)
            except SilenceError:
                if not await self._revived():
                    raise
                self._on_status(f"backend {self.name}: {request.role}: asking again")

    async def check(self) -> None:
        """Have the server up; it lists the model and answers a question as the roles ask theirs.

        Raises:
            BackendError: it is not served, or does not answer as it must.
        """
        if self.server is not None:
            async with self._call("check") as call:
                await self._open(call)
            return
        try:
            await self._ready(self._base_url)
        except BackendError as error:
            raise BackendError(f"backend {self.name}: check: {error}") from error

    async def _ready(self, base: str) -> None:
        """Find the model among those served at `base`, and ask the test question.

        Raises:
            BackendError: it fails; the message is the bare fault.
        """
        async with self._call("check", base) as call:
            answer = await self._send(call, "GET", "/models", None, Sampling(0, None))
            try:
                self._served = answers.find_model(answer.body, self.settings.model)
            except BackendError as error:
                raise call.error(error) from error
        await self._ask(canary(sees=self._sees), base)

    async def _revived(self) -> bool:
        """Find out why no answer came; return whether the server was started again.

        Raises:
            BackendLostError: it answers nothing, and cannot be started again.
            BackendError: it was, and did not become ready.
        """
        if self.server is not None:
            return await self.server.revive()
        gave_up = asyncio.get_running_loop().time()
        async with self._looking:  # many give up at once, and one question tells them all
            if self._looked_at < gave_up:
                self._fault = ""
                try:
                    await self._ready(self._base_url)
                except BackendError as error:
                    self._fault = str(error)
                self._looked_at = asyncio.get_running_loop().time()
        if self._fault:
            raise BackendLostError(
                f"backend {self.name}: no answer within {self.settings.timeout:g} s (timeout), and "
                f"none to a test question: {self._fault}; see to the server at {self._base_url}"
            )
        return False

    def fingerprint(self) -> str:
        """Return a digest of what decides answers; after `check`, of the served model as well."""
        settings = self.settings.model_dump(
            mode="json",
            include={"kind", "model", "base_url", "temperature", "max_pixels", "image_factor"}
            | {"response_format"},
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
        return f"{self.settings.kind}:{digest([settings, served])}"

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

    async def _ask(self, request: Request[Any], base: str | None = None) -> Reply:
        """Ask until an answer fits, at most three times; at `base`, else of a server that is up."""
        label = request.role if base is None else "check"
        usage: Counter[str] = Counter()
        async with self._call(label, base) as call:
            try:
                messages = await asyncio.to_thread(dialects.messages, request, self.settings)
            except (TypeError, ValueError, OSError) as error:
                raise call.error(error) from error
            for again in range(_RESAMPLES + 1):
                sampling = dialects.sampling(request, self.settings, again)
                body = dialects.body(request, self.settings, messages, sampling)
                answer = await self._send(call, "POST", "/chat/completions", body, sampling)
                try:
                    completion = answers.read_completion(answer.body)
                    usage.update(completion.tokens)
                    data = _read(request, completion)
                except BackendError as error:
                    raise call.error(error) from error
                except answers.DoesNotFit as fault:
                    call.note(str(fault), sampling, answer)
                    self._on_status(f"{call.who}: {fault}; asking again")
                    continue
                call.note("ok", sampling, answer)
                tried = tuple(call.tried)
                return Reply(data, completion.text, dict(usage), answers.COMPLETE, tried)
            raise call.error(f"no valid reply in {_RESAMPLES + 1} tries")

    @asynccontextmanager
    async def _call(self, label: str, base: str | None = None) -> AsyncIterator[Call]:
        """Open a call whose whole duration is bounded."""
        seconds = self.settings.timeout
        call = Call(f"backend {self.name}: {label}", base, asyncio.timeout(seconds))
        try:
            async with call.deadline:
                yield call
        except TimeoutError as error:
            if not call.deadline.expired():
                raise
            fault = f"no answer within {seconds:g} s (timeout)"
            raise call.error(fault, SilenceError) from error

    async def _send(
        self,
        call: Call,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        sampling: Sampling,
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
                outcome += dialects.hint(self.name, self.settings, answer.status, answer.body)
                if answer.status != 429 and answer.status < 500:
                    raise call.error(outcome)
            wait = self._wait(call, answer, outcome)
            call.note(outcome, sampling, answer)
            self._on_status(f"{call.who}: {outcome}; next try in {wait:g} s")
            await self._sleep(wait)

    def _wait(self, call: Call, answer: Answer | None, outcome: str) -> float:
        """Return the seconds until the next try.

        Raises:
            BackendError: there is none.
        """
        wait = min(_FIRST_BACKOFF * 2.0 ** min(call.waits, 9), _LAST_BACKOFF)
        call.waits += 1
        if answer is not None and answer.retry_after is not None:
            wait = answer.retry_after
        if answer is None or answer.status != _LOADING:
            call.failures += 1
        elif call.waits > self.settings.retries:  # nothing else keeps a wait of 0 s from spinning
            wait = max(wait, _FIRST_BACKOFF)
        if call.failures > self.settings.retries:
            used = f"; {self.settings.retries} retries used up" if self.settings.retries else ""
            raise call.error(f"{outcome}{used}")
        if wait >= call.left():
            raise call.error(f"{outcome}; next try in {wait:g} s is beyond the timeout")
        return wait

    async def _open(self, call: Call) -> tuple[str, Wire]:
        """Return the base URL, of a server that is up if it is ours, and the wire to it."""
        if self._closed:  # between two tries: a server started now would have nobody to stop it
            raise call.error("it was closed meanwhile")
        if self._wire is None:
            variable = self.settings.api_key_env
            try:
                self._wire = Wire(None if variable is None else read_key(variable))
            except BackendError as error:
                raise call.error(error) from error
        if call.base is not None or self.server is None:
            return call.base or self._base_url, self._wire
        with call.paused():
            async with self._starting:
                start = self.server.ensure if self._started else self.server.start
                base = await start()
                self._started = True
        return base.rstrip("/"), self._wire


def _read(request: Request[Any], completion: answers.Completion) -> dict[str, Any]:
    """Return the data of an answer.

    Raises:
        DoesNotFit: it is not as the request's shape says, or not whole.
        BackendError: asking again would not change it.
    """
    text = completion.whole(dialects.token_limit(request))
    try:
        data = read_object(text)
        validate(request.shape, data)
    except ValueError as fault:
        raise answers.DoesNotFit(f"invalid reply: {shown(str(fault))}: {shown(text)}") from fault
    return data


def _check_settings(name: str, settings: ChatBackendSettings, *, started: bool) -> str:
    """Return the address to call, empty for a server that is started.

    Raises:
        ConfigError: it may not be called, or extra_body takes over what is not its own.
    """
    where = f"backends.{name}"
    if taken := OURS & settings.extra_body.keys():
        raise ConfigError(f"{where}.extra_body: {', '.join(sorted(taken))} cannot be set here")
    try:
        json.dumps(settings.extra_body, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}.extra_body: {error}") from error
    if (settings.base_url is None) != started:
        raise ConfigError(f"{where}: needs a base_url or a server")
    if settings.base_url is None:
        return ""
    try:
        address = check_address(settings.base_url, allow_network=settings.allow_network)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from None
    if settings.api_key_env and is_open_wire(address):
        raise ConfigError(
            f"{where}.base_url: {address} would carry the key unencrypted beyond this machine; use "
            "https"
        )
    return address

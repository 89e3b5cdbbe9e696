"""One vLLM server of ours: started from a model directory, watched, and gone when we are.

Ready means that it lists the model under its name *and* answers the test question of whoever asks
it (`chat`); a green /health says neither. Flags and environment are `command`'s matter, exchanges
with it `probe`'s, why it ended `diagnosis`', that no process outlives us `watchdog`'s. Who may use
the GPU when is decided by whoever calls `sleep` and `wake`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from npc_local.backends.http import shown
from npc_local.backends.vllm.command import HOST, check_directory, command, environment
from npc_local.backends.vllm.diagnosis import KILLED, first_cause
from npc_local.backends.vllm.probe import Fault, Probe
from npc_local.backends.vllm.server_log import ServerLog
from npc_local.backends.vllm.shared_work import Shared
from npc_local.backends.vllm.watchdog import Guarded
from npc_local.core.config.settings import ChatBackendSettings
from npc_local.core.errors import BackendError, BackendLostError, ConfigError

log = logging.getLogger(__name__)

_GRACE = 20.0  # seconds that a server gets to end in order
_POLL = 0.25  # seconds between two looks at a server that starts
_LAST_BREATH = 2.0  # seconds from a connection's end to that of the process which held it
_STRANGER = 60.0  # seconds that a server of another model may answer before we give up
_NEWS = 15.0  # seconds between two lines on a start that takes long
_PORTS = 3  # tries to get a port before somebody else does
_PORT_TAKEN = "address already in use"


class _PortTaken(Fault):
    """Somebody else took the port between its choice and its use."""


class VllmServer:
    """A vLLM server from `settings.server`. One event loop; calls may overlap."""

    def __init__(
        self,
        name: str,
        settings: ChatBackendSettings,
        ready: Callable[[str], Awaitable[None]],
        *,
        log: Path | None = None,
        on_status: Callable[[str], None] = log.warning,
    ) -> None:
        """Take the settings; nothing is started or read yet.

        Args:
            name: the backend's name in models.toml.
            settings: its entry.
            ready: asks the server at a base URL the test question; raises `BackendError`.
            log: the file that the server's output is added to; left out, a temporary one that is
                kept if something fails.
            on_status: is told of starts, of long waits and of restarts, one line each.

        Raises:
            ConfigError: the entry has no server.
        """
        if settings.server is None:
            raise ConfigError(f"backends.{name}: has no server to start")
        self.name = name
        self.settings = settings
        self.server = settings.server
        self._ready = ready
        self._log = ServerLog(name, log)
        self._on_status = on_status
        self._guarded: Guarded | None = None
        self._probe: Probe | None = None
        self._port = 0
        self._asleep = False
        self._broken = ""  # why it is not running although it should be
        self._restarts = 0
        self._launches = 0
        self._turn = asyncio.Lock()
        self._first_start = Shared(self._turn, partial(self._rise, again=False))
        self._up = Shared(self._turn, partial(self._rise, again=True))
        self._examination = Shared(self._turn, self._examine)
        self._ending: asyncio.Future[None] | None = None  # of a process that may hold memory yet
        self._stopping = 0  # calls of `stop` under way

    @property
    def base_url(self) -> str:
        """The address for `chat`, ending in /v1.

        Raises:
            BackendError: it is not running.
        """
        if self._guarded is None:
            raise BackendError(f"backend {self.name}: its server is not running")
        return self._url("/v1")

    def alive(self) -> bool:
        """Return whether its process runs; a server that sleeps or still starts is alive."""
        return self._guarded is not None and self._guarded.status is None

    async def start(self) -> str:
        """Start it unless it runs, wait until it is ready, and return its base URL.

        If the caller is cancelled, the start goes on, for others who wait; `stop` ends it.

        Raises:
            ConfigError: no such interpreter, or flags or variables that are not the user's to set.
            ModelFilesError: the model directory is not complete.
            BackendError: it ended, or was not ready within `start_timeout` seconds.
        """
        await self._first_start.done()
        return self.base_url

    async def ensure(self) -> str:
        """Return the base URL of a server that runs: start, wake or restart it if need be.

        As with `start`, a caller that is cancelled ends nothing.

        Raises:
            BackendError: it died and has been started again `restarts` times already, or does not
                become ready. What `start` raises besides.
        """
        await self._up.done()
        return self.base_url

    async def revive(self) -> bool:
        """Ask the test question after a silence, and start it again if it does not answer.

        Returns:
            Whether it was started again.

        Raises:
            BackendLostError: it was, `restarts` times, or does not become ready. What `start`
                raises besides.
        """
        launches = self._launches
        await self._examination.done()
        return self._launches > launches

    async def stop(self) -> None:
        """End it and all that it started; returns when they are gone. Idempotent."""
        self._stopping += 1
        try:
            await self._halt()  # also a server that is being started: that fails, and lets go
            async with self._turn:
                await self._halt()
                self._broken = ""
                self._log.discard()
        finally:
            self._stopping -= 1

    async def sleep(self) -> None:
        """Have it release the GPU's memory, to be woken by `wake` or `ensure`.

        With `server.sleep`, weights wait in main memory (level 1). Without, or if that fails, it
        is stopped, and waking it means starting it.
        """
        async with self._turn:
            if not self.alive() or self._asleep:
                return
            if self.server.sleep:
                try:
                    await self._open_probe().sleep()
                except Fault as fault:
                    self._say(f"its server {fault}; stopping it")
                else:
                    self._asleep = True
                    return
            await self._halt()

    async def wake(self) -> None:
        """Have it ready again after `sleep`, as proved by an answer about an image.

        Raises:
            BackendError: it does not wake, and a restart (if one is left) does not help.
        """
        await self.ensure()

    async def _rise(self, *, again: bool) -> None:
        """Start or wake it; `again` makes a start after a failure count as a restart."""
        if self.alive():
            if self._asleep:
                await self._rouse()
        elif again and (self._guarded is not None or self._broken):
            await self._restart(self._broken or self._ended())
        else:
            await self._start()

    async def _examine(self) -> None:
        """Start it again if it does not answer the test question."""
        if self._asleep:
            return
        try:
            await self._answers()
        except Fault as fault:
            await self._restart(f"answers nothing any more: it {fault}")

    async def _answers(self) -> None:
        """Ask the test question.

        Raises:
            Fault: it does not answer as it must, or ends meanwhile.
        """
        question = asyncio.ensure_future(self._ready(self._url("/v1")))
        try:
            while not question.done():
                if not self.alive():
                    raise Fault(self._ended())
                await asyncio.wait({question}, timeout=_POLL)
            await question
        except BackendError as error:
            raise Fault(f"gives no valid answer to a test question: {error}") from error
        finally:
            question.cancel()

    async def _rouse(self) -> None:
        """Wake a sleeping server; one that does not answer afterwards is started again."""
        try:
            await self._open_probe().wake()
            await self._answers()
        except Fault as fault:
            await self._restart(f"did not wake up: {fault}")
        self._asleep = False

    async def _restart(self, why: str) -> None:
        """Start a server again that is dead or useless, if it may be."""
        if self._stopping:
            raise BackendError(f"backend {self.name}: its server was stopped")
        if self._restarts >= self.server.restarts:
            used = f"; restarts = {self.server.restarts} used up" if self._restarts else ""
            error = await self._error(f"its server {why}{used}", BackendLostError)
            await self._halt()
            self._broken = why
            raise error
        self._restarts += 1
        self._broken = why  # until it is up again
        self._say(f"its server {why}; starting it again")
        await self._halt()
        await self._start()

    async def _start(self) -> None:
        """Start it, on another port if the first one is taken meanwhile."""
        await self._halt()
        await asyncio.to_thread(check_directory, self.server)
        for last in (False,) * (_PORTS - 1) + (True,):
            try:
                await self._launch()
            except Fault as fault:
                cause = await self._cause(fault)
                error = await self._error(f"its server {cause}")
                await self._halt()
                if isinstance(cause, _PortTaken) and not last:
                    continue
                self._broken = str(cause)
                raise error from None
            except BaseException:
                await self._halt()
                raise
            self._broken = ""
            return

    async def _launch(self) -> None:
        """Start the process and wait until it is ready."""
        if self._stopping:
            raise Fault("was stopped")
        try:
            path = self._log.open()
        except OSError as error:
            raise Fault(f"cannot write its log: {error}") from error
        self._port = _free_port()
        line = command(self.name, self.settings, self.server, self._port)
        variables = environment(self.name, self.server)
        started = time.monotonic()
        self._say(f"starting vLLM with {self.server.model} (log: {path})")
        try:
            # In the root directory, where nobody else puts a vllm.py for `-m` to find.
            root = Path(path.anchor)
            self._guarded = Guarded(
                line, environment=variables, directory=root, log=path, grace=_GRACE
            )
        except OSError as error:
            raise Fault(f"could not be started: {error}") from error
        self._asleep = False
        self._launches += 1
        self._probe = Probe(self._url(""), self.settings.timeout)
        limit = asyncio.timeout(self.server.start_timeout)
        try:
            async with limit:
                await self._listed()
                await self._answers()
        except TimeoutError:
            if not limit.expired():
                raise
            raise Fault(
                f"was not ready after {self.server.start_timeout:g} s; raise start_timeout if it "
                "was only slow"
            ) from None
        self._log.skip()  # what did not keep it from getting ready is no cause of its end
        self._say(f"ready after {time.monotonic() - started:.0f} s")

    async def _listed(self) -> None:
        """Wait until the model is listed."""
        started = last_news = time.monotonic()
        while True:
            names = await self._open_probe().models()
            if self._guarded is None or self._guarded.status is not None:
                raise Fault(self._ended())
            if self.settings.model in names:
                return
            now = time.monotonic()
            # Ours is named by us: this is a stranger's, and ours will find the port taken.
            if names and now - started > _STRANGER:
                raise Fault(
                    f"serves {', '.join(names)} on port {self._port}, not {self.settings.model}"
                )
            if now - last_news > _NEWS:
                last_news, lines = now, self._log.tail()
                news = shown(lines[-1]) if lines else "no output yet"
                self._say(f"starting for {now - started:.0f} s: {news}")
            await asyncio.sleep(_POLL)

    async def _cause(self, fault: Fault) -> Fault:
        """Return what is behind a fault: the server's end, if it ended, and what ended it."""
        deadline = time.monotonic() + _LAST_BREATH
        while self.alive() and time.monotonic() < deadline:
            await asyncio.sleep(_POLL)
        if self._guarded is None or self._guarded.status is None:
            return fault
        taken = any(_PORT_TAKEN in line.lower() for line in self._log.tail())
        return _PortTaken(self._ended()) if taken else Fault(self._ended())

    def _open_probe(self) -> Probe:
        if self._probe is None:
            raise Fault("was stopped")
        return self._probe

    def _ended(self) -> str:
        status = None if self._guarded is None else self._guarded.status
        if status is None:
            return "was stopped"
        return f"{'was killed' if status == KILLED else 'ended'} with exit status {status}"

    async def _halt(self) -> None:
        """End the process, if there is one, and close connections.

        If cancelled, the process still ends, and the next call waits for that: no second server is
        started beside it.
        """
        guarded, self._guarded = self._guarded, None
        probe, self._probe = self._probe, None
        self._asleep = False
        if guarded is not None:
            self._ending = asyncio.get_running_loop().run_in_executor(None, guarded.stop)
        try:
            if self._ending is not None and not self._ending.done():
                await asyncio.shield(self._ending)
        finally:
            if probe is not None:
                await probe.aclose()

    def _say(self, what: str) -> None:
        self._on_status(f"backend {self.name}: {what}")

    def _url(self, path: str) -> str:
        return f"http://{HOST}:{self._port}{path}"

    async def _error(self, what: str, kind: type[BackendError] = BackendError) -> BackendError:
        """Return the error for a user: what is wrong, its first cause, what to do, the log."""
        cause = await asyncio.to_thread(first_cause, self._log.lines())
        killed = f"exit status {KILLED}" in what
        message = f"backend {self.name}: {what}"
        if cause is not None and cause.advice:
            message += f"; {cause.advice}"
        elif killed:
            message += "; if nobody did that, the kernel did, as main memory ran out (see dmesg)"
        if self._log.path is None:
            return kind(message)
        self._log.kept = True
        if cause is not None:
            return kind(f"{message}\nIts log, {self._log.path}, says: {shown(cause.line)}")
        if killed:  # its log knows nothing of it
            return kind(f"{message}; its log: {self._log.path}")
        lines = "".join(f"\n  {line}" for line in self._log.tail()) or " nothing"
        return kind(f"{message}\nIts log, {self._log.path}, ends with:{lines}")


def _free_port() -> int:
    try:
        with socket.create_server((HOST, 0)) as probe:
            port: int = probe.getsockname()[1]
            return port
    except OSError as error:
        raise Fault(f"could not be started: no port of {HOST} can be had: {error}") from error

"""One vLLM server of ours: started from a model directory, watched, and gone when we are.

Ready means that it lists the model under its name *and* answers a question about an image with
valid JSON; a green /health says neither. Flags and environment are `vllm_command`'s matter, the
exchanges with it `vllm_probe`'s and `chat`'s, that no process outlives us `watchdog`'s. Who may use
the GPU when is decided by whoever calls `sleep` and `wake`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from npc_local.backends.http import shown
from npc_local.backends.vllm.command import HOST, check_directory, command, environment
from npc_local.backends.vllm.probe import Fault, Probe
from npc_local.backends.vllm.watchdog import Guarded
from npc_local.core.config.settings import ChatBackendSettings
from npc_local.core.errors import BackendError, ConfigError

log = logging.getLogger(__name__)

_GRACE = 20.0  # seconds that a server gets to end in order
_POLL = 0.25  # seconds between two looks at a server that starts
_LAST_BREATH = 2.0  # seconds from a connection's end to that of the process which held it
_STRANGER = 60.0  # seconds that a server of another model may answer before we give up
_NEWS = 15.0  # seconds between two lines on a start that takes long
_PORTS = 3  # tries to get a port before somebody else does
_TAIL_LINES, _TAIL_BYTES = 15, 6000
_PORT_TAKEN = "address already in use"
_ADVICE = {
    r"No module named '?vllm\b": "that Python has no vLLM; set server.python to the interpreter of "
    "the environment that has it",
    r"Free memory on device|No available memory|KV cache.*larger|larger.*KV cache": "it does not "
    "fit beside what else uses the GPU; change gpu_memory_utilization, lower max_model_len, or use "
    'gpu = "phased"',
    r"out of memory|OutOfMemory": "out of memory; lower gpu_memory_utilization or max_model_len, "
    'or use gpu = "phased"',
    r"unrecognized arguments|error: argument": "it refuses one of its flags; see server.arguments, "
    "and use vLLM 0.32 or newer",
    r"trust.remote.code": "the model wants to run code of its own, which npc-local does not allow",
}


class _PortTaken(Fault):
    """Somebody else took the port between its choice and its use."""


class VllmServer:
    """A vLLM server from `settings.server`. One event loop; calls may overlap."""

    def __init__(
        self,
        name: str,
        settings: ChatBackendSettings,
        log: Path | None = None,
        on_status: Callable[[str], None] = log.warning,
    ) -> None:
        """Take the settings; nothing is started or read yet.

        Args:
            name: the backend's name in models.toml.
            settings: its entry.
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
        self._log = log
        self._on_status = on_status
        self._temporary = log is None
        self._kept = False  # whether an error named the log
        self._mark = 0  # bytes of the log before the last start
        self._guarded: Guarded | None = None
        self._probe: Probe | None = None
        self._port = 0
        self._sees = True
        self._asleep = False
        self._broken = ""  # why it is not running although it should be
        self._restarts = 0
        self._turn = asyncio.Lock()
        self._rising: asyncio.Task[None] | None = (
            None  # one start, wake or restart, for all callers
        )
        self._callers = 0  # who wait for it
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
        return await self._up(again=False)

    async def ensure(self) -> str:
        """Return the base URL of a server that runs: start, wake or restart it if need be.

        As with `start`, a caller that is cancelled ends nothing.

        Raises:
            BackendError: it died and has been started again `restarts` times already, or does not
                become ready. What `start` raises besides.
        """
        return await self._up(again=True)

    async def stop(self) -> None:
        """End it and all that it started; returns when they are gone. Idempotent."""
        self._stopping += 1
        try:
            await self._halt()  # also a server that is being started: that fails, and lets go
            async with self._turn:
                await self._halt()
                self._broken = ""
                if self._temporary and self._log is not None and not self._kept:
                    self._log.unlink(missing_ok=True)
                    self._log = None
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
                    await self._asked().sleep()
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

    async def _up(self, *, again: bool) -> str:
        """Have it up, by a task that callers share and that no caller's cancellation ends."""
        if self._rising is None or self._rising.done():
            self._rising = asyncio.create_task(self._rise(again=again))
            self._rising.add_done_callback(_look_at)
        self._callers += 1
        try:
            await asyncio.shield(self._rising)
        finally:
            self._callers -= 1
        return self.base_url

    async def _rise(self, *, again: bool) -> None:
        """Start or wake it; `again` makes a start after a failure count as a restart."""
        async with self._turn:
            if not self._callers:
                return  # all were cancelled before it began
            if self.alive():
                if self._asleep:
                    await self._rouse()
            elif again and (self._guarded is not None or self._broken):
                await self._restart(self._broken or self._ended())
            else:
                await self._start()

    async def _rouse(self) -> None:
        """Wake a sleeping server; one that does not answer afterwards is started again."""
        try:
            await self._asked().wake()
            await self._asked().canary(sees=self._sees)
        except Fault as fault:
            await self._restart(f"did not wake up: {fault}")
        self._asleep = False

    async def _restart(self, why: str) -> None:
        """Start a server again that is dead or useless, if it may be."""
        if self._stopping:
            raise BackendError(f"backend {self.name}: its server was stopped")
        if self._restarts >= self.server.restarts:
            used = f"; restarts = {self.server.restarts} used up" if self._restarts else ""
            error = self._error(f"its server {why}{used}")
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
        self._sees = await asyncio.to_thread(check_directory, self.server)
        for last in (False,) * (_PORTS - 1) + (True,):
            try:
                await self._launch()
            except Fault as fault:
                cause = await self._cause(fault)
                error = self._error(f"its server {cause}")
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
        path = self._open_log()
        self._mark = path.stat().st_size if path.exists() else 0
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
        self._probe = Probe(self._url(""), self.settings)
        limit = asyncio.timeout(self.server.start_timeout)
        try:
            async with limit:
                await self._listed()
                await self._asked().canary(sees=self._sees)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Fault(
                f"was not ready after {self.server.start_timeout:g} s; raise start_timeout if it "
                "was only slow"
            ) from None
        self._say(f"ready after {time.monotonic() - started:.0f} s")

    async def _listed(self) -> None:
        """Wait until the model is listed."""
        started = last_news = time.monotonic()
        while True:
            names = await self._asked().models()
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
                last_news, lines = now, self._tail()
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
        taken = any(_PORT_TAKEN in line.lower() for line in self._tail())
        return _PortTaken(self._ended()) if taken else Fault(self._ended())

    def _asked(self) -> Probe:
        if self._probe is None:
            raise Fault("was stopped")
        return self._probe

    def _ended(self) -> str:
        status = None if self._guarded is None else self._guarded.status
        return "was stopped" if status is None else f"ended with exit status {status}"

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

    def _open_log(self) -> Path:
        """Return the log's path, its directory made."""
        try:
            if self._log is None:
                prefix = f"npc-local-{re.sub(r'[^A-Za-z0-9_-]+', '-', self.name)}-"
                with tempfile.NamedTemporaryFile(
                    prefix=prefix, suffix=".log", delete=False
                ) as file:
                    self._log = Path(file.name)
            self._log = self._log.absolute()
            self._log.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Fault(f"cannot write its log: {error}") from error
        return self._log

    def _tail(self) -> list[str]:
        """Return the last lines that it wrote since it was started."""
        if self._log is None or not self._log.exists():
            return []
        with self._log.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(self._mark, end - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
        return [line.rstrip() for line in text.splitlines() if line.strip()][-_TAIL_LINES:]

    def _error(self, what: str) -> BackendError:
        """Return the error for a user: what is wrong, what to do, the log's last lines."""
        lines = self._tail()
        text = "\n".join(lines)
        advice = next((do for sign, do in _ADVICE.items() if re.search(sign, text, re.I)), "")
        message = f"backend {self.name}: {what}" + (f"; {advice}" if advice else "")
        if self._log is None:
            return BackendError(message)
        self._kept = True
        last = "".join(f"\n  {line}" for line in lines) or " nothing"
        return BackendError(f"{message}\nIts log, {self._log}, ends with:{last}")


def _look_at(task: asyncio.Task[None]) -> None:
    """Take note of a failure that every caller was cancelled before."""
    if not task.cancelled():
        task.exception()


def _free_port() -> int:
    try:
        with socket.create_server((HOST, 0)) as probe:
            port: int = probe.getsockname()[1]
            return port
    except OSError as error:
        raise Fault(f"could not be started: no port of {HOST} can be had: {error}") from error

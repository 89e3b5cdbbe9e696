"""HTTP to one server: one exchange at a time, nowhere else, and the key in no text.

httpx2 is the maintained continuation of httpx, with its API; huggingface_hub brings it along, so it
costs no package, and it gives what the openai package hides: no retries of its own, no default
address. Proxy variables and .netrc are ignored, redirects are errors, and no connection is kept, so
that none can turn out stale. Deadlines and retries are the caller's (`chat`).
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import socket
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
from pydantic import SecretStr

from npc_local.core.errors import BackendError, ConfigError

# Its debug log quotes the headers of answers, and servers can quote a key there.
logging.getLogger("httpcore2").setLevel(logging.INFO)

_MAX_BYTES = 8 << 20  # of one answer: far more than any token budget fills
_SHOWN = 300  # characters of an answer that an error message quotes
_HIDDEN = 8  # shorter keys ("EMPTY") are placeholders, and would black out ordinary text


class ConnectionFault(Exception):
    """The exchange broke off: worth another try, unlike a `BackendError`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered: status, body, and how many seconds it asks to be left alone."""

    status: int
    body: str
    retry_after: float | None
    seconds: float


class Wire:
    """Sends JSON to a server, with the key if there is one."""

    def __init__(self, key: SecretStr | None = None) -> None:
        self._key = key
        self._client = httpx2.AsyncClient(
            auth=None if key is None else _Bearer(key),
            headers={"Accept-Encoding": "identity"},
            timeout=None,  # a read timeout restarts with every byte; the caller has a deadline
            trust_env=False,
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def send(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Send one request and read the whole answer, whatever its status.

        Raises:
            ConnectionFault: no connection, or it broke off.
            BackendError: a redirect, an endless answer, or a connection that is not permitted.
        """
        content = None if body is None else json.dumps(body, allow_nan=False).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        started = time.monotonic()
        received = bytearray()
        try:
            async with self._client.stream(
                method, url, content=content, headers=headers
            ) as response:
                if response.is_redirect:
                    target = self._shown(response.headers.get("location", ""))
                    raise BackendError(
                        f"{url} redirects to {target}: redirects are not followed; set base_url to "
                        "the server itself"
                    )
                async for chunk in response.aiter_bytes():
                    received += chunk
                    if len(received) > _MAX_BYTES:
                        raise BackendError(f"{url}: more than {_MAX_BYTES >> 20} MiB in one answer")
        except httpx2.RequestError as error:
            said, refused = _cause(error)
            what = f"no answer from {url}: {self._shown(said)}"
            raise (BackendError if refused else ConnectionFault)(what) from error
        return Answer(
            status=response.status_code,
            body=self._scrubbed(received.decode("utf-8", "replace")),
            retry_after=retry_after(response.headers.get("retry-after")),
            seconds=time.monotonic() - started,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    def _scrubbed(self, text: str) -> str:
        """Return text without the key: servers quote a wrong one back."""
        key = "" if self._key is None else self._key.get_secret_value()
        return text.replace(key, "***") if len(key) >= _HIDDEN else text

    def _shown(self, text: str) -> str:
        return shown(self._scrubbed(text))


class _Bearer(httpx2.Auth):
    """Puts the key into the header at the last moment, so that no object of ours holds it."""

    def __init__(self, key: SecretStr) -> None:
        self._key = key

    def auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        yield request


def _cause(error: BaseException) -> tuple[str, bool]:
    """Return what the operating system said, and whether the connection is not permitted.

    The layers above word everything as "All connection attempts failed".
    """
    said, refused = str(error) or type(error).__name__, False
    inner = error.__cause__ or error.__context__
    while inner is not None:
        if isinstance(inner, PermissionError):
            said, refused = str(inner), True
        elif isinstance(inner, OSError) and inner.errno is not None:
            said = os.strerror(inner.errno) if inner.errno > 0 else str(inner)
        inner = inner.__cause__ or inner.__context__
    return said, refused


def shown(text: str) -> str:
    """Return text as a message may quote it: one line, printable, short."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 8 * _SHOWN]).split())
    return line if len(line) <= _SHOWN else line[:_SHOWN] + " ..."


def read_key(variable: str) -> SecretStr:
    """Return the key that an environment variable holds.

    Raises:
        BackendError: it is not set, or cannot be sent.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise BackendError(f"no key: set the environment variable {variable} (api_key_env)")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise BackendError(f"the environment variable {variable} (api_key_env) holds no valid key")
    return SecretStr(key)


def check_address(address: str, *, allow_network: bool) -> str:
    """Return a base URL without its last slash, if it may be called.

    Raises:
        ConfigError: no http address, one that carries a password or a query, one to listen at, or
            one beyond this machine that is not allowed.
    """
    try:
        url = httpx2.URL(address)
    except httpx2.InvalidURL as error:
        raise ConfigError(f"base_url: {address!r} is not an address: {error}") from error
    if url.userinfo:
        raise ConfigError("base_url: holds a password; keys come from api_key_env only")
    if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
        raise ConfigError(f"base_url: {address!r} is not like http://127.0.0.1:8000/v1")
    if _is_any(url.host):
        port = "" if url.port is None else f":{url.port}"
        raise ConfigError(
            f"base_url: {url.host} is where a server listens, not an address to call; write "
            f"{url.scheme}://127.0.0.1{port}{url.path}"
        )
    if not (allow_network or _is_loopback(url.host)):
        raise ConfigError(
            f'base_url: {url.host} is beyond this machine; reaching it needs kind = "openai" and '
            "allow_network = true"
        )
    return address.rstrip("/")


def is_open_wire(address: str) -> bool:
    """Return whether what goes to this address leaves the machine unencrypted."""
    url = httpx2.URL(address)
    return url.scheme == "http" and not _is_loopback(url.host)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_any(host: str) -> bool:
    """Tell whether a host stands for every address of this machine, however it is spelt."""
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host)).is_unspecified
    except OSError:
        pass
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_unspecified


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, as a number or a date, or None."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None

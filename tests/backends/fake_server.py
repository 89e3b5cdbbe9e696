"""A chat server on loopback that does as it is told, misbehaving included, and notes what it got.

Each behaviour answers one request: `server.say(...)` and friends queue them, `server.do` takes any.
With an empty queue it answers well: the smallest JSON that the request's schema allows.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Behaviour = Callable[["_Handler"], None]
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


class FakeServer:
    """`with FakeServer() as server:` serves on `server.base_url` until the block ends."""

    def __init__(self, model: str = "qwen") -> None:
        self.models: list[dict[str, Any]] = [{"id": model, "root": "/m", "max_model_len": 8192}]
        self.requests: list[Received] = []
        self.hang_at_models = False
        self.disconnected = threading.Event()
        self.stopping = threading.Event()
        self._queue: deque[Behaviour] = deque()

    def __enter__(self) -> Self:
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.fake = self  # type: ignore[attr-defined]
        self.base_url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def chats(self) -> list[Received]:
        """The chat requests so far."""
        return [request for request in self.requests if request.method == "POST"]

    def do(self, *behaviours: Behaviour) -> None:
        """Queue behaviours, one a chat request."""
        self._queue.extend(behaviours)

    def forget(self) -> None:
        """Drop the behaviours that nobody asked for."""
        self._queue.clear()

    def say(self, data: object, **changes: Any) -> None:
        """Queue a good answer: `data` as JSON."""
        self.do(complete(json.dumps(data), **changes))

    def serve(self, handler: _Handler, request: Received) -> None:
        """Answer one request."""
        self.requests.append(request)
        if request.method == "GET" and self.hang_at_models:
            hang(handler)
        elif request.method == "GET":
            handler.respond(200, json.dumps({"object": "list", "data": self.models}))
        elif self._queue:
            self._queue.popleft()(handler)
        else:
            form = request.body["response_format"]
            schema = form.get("json_schema", form)["schema"]
            complete(json.dumps(smallest(schema)))(handler)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # with fewer, connections that come at once wait a second


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _serve(self, body: dict[str, Any]) -> None:
        fake: FakeServer = self.server.fake  # type: ignore[attr-defined]
        request = Received(self.command, self.path, dict(self.headers), body)
        with contextlib.suppress(ConnectionError):
            fake.serve(self, request)

    def respond(self, status: int, body: str | bytes, **headers: str) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def wait_for_the_client_to_leave(self, each: Callable[[], object] = bool) -> None:
        """Call `each` every 10 ms until the client closes the connection or the test ends."""
        fake: FakeServer = self.server.fake  # type: ignore[attr-defined]
        while not fake.stopping.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.01)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                fake.disconnected.set()
                return
            each()

    def log_message(self, *_: object) -> None:
        pass


def complete(content: object, finish_reason: object = "stop", **message: Any) -> Behaviour:
    """Answer with a chat completion of this content; `message` adds refusal, reasoning, ..."""
    body = {
        "id": "chatcmpl-1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish_reason,
            }
        ],
        "usage": USAGE,
    }
    return lambda handler: handler.respond(200, json.dumps(body))


def status(code: int, body: str | bytes = '{"error": "no"}', **headers: str) -> Behaviour:
    """Answer with a status, a body and headers (written with underscores)."""
    return lambda handler: handler.respond(code, body, **headers)


def hang(handler: _Handler) -> None:
    """Accept the request and never answer it."""
    handler.wait_for_the_client_to_leave()


def trickle(handler: _Handler) -> None:
    """Promise a long answer and send it byte by byte."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wait_for_the_client_to_leave(lambda: handler.wfile.write(b" "))


def flood(handler: _Handler) -> None:
    """Send more than any answer may have."""
    handler.respond(200, b" " * (9 << 20))


def drop(handler: _Handler) -> None:
    """Close the connection without a word."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut(handler: _Handler) -> None:
    """Close the connection in the middle of an answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def smallest(schema: Mapping[str, Any]) -> Any:
    """Return the smallest value that a schema allows, but for lists: a model fills them."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema["type"]
    if kind == "object":
        return {name: smallest(inner) for name, inner in schema["properties"].items()}
    if kind == "array":
        return [smallest(schema["items"])]
    return {"string": "x", "number": 0.5, "integer": 0, "boolean": True}[kind]

"""Stands in for `python -m vllm.entrypoints.openai.api_server`, and misbehaves as FAKE_FAULTS asks.

FAKE_STATE names a directory: one JSON file a start, with pid, arguments and environment. A fault
may end in :N for "at the first N starts only". Standard library only: it is run as a script.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

STATE = Path(os.environ["FAKE_STATE"])
START = len(list(STATE.glob("start-*.json"))) + 1
FAULTS = {
    fault.partition(":")[0]
    for fault in os.environ.get("FAKE_FAULTS", "").split(",")
    if fault and int(fault.partition(":")[2] or 1_000_000) >= START
}
FLAGS = dict(flag[2:].split("=", 1) for flag in sys.argv[3:] if "=" in flag)
HANG = threading.Event()
asleep = False
woken = False


class Handler(BaseHTTPRequestHandler):
    def reply(self, data: object, status: int = 200) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            name = "stranger" if "wrong-model" in FAULTS else FLAGS["served-model-name"]
            self.reply({"object": "list", "data": [{"id": name}]})
        elif self.path == "/is_sleeping":
            self.reply({"is_sleeping": asleep})
        else:
            self.reply({}, 200 if self.path == "/health" else 404)

    def do_POST(self) -> None:
        global asleep, woken
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "null")
        with (STATE / "requests.jsonl").open("a") as file:
            file.write(json.dumps([self.path, body]) + "\n")
        if self.path.startswith("/sleep"):
            if "sleep-fails" in FAULTS:
                self.reply({"error": "no sleep mode"}, 500)
                return
            asleep = True
            self.reply({"status": "sleeping"})
        elif self.path == "/wake_up":
            if "wake-fails" in FAULTS:
                self.reply({"error": "CUDA out of memory"}, 500)
                return
            asleep, woken = False, True
            self.reply({"status": "awake"})
        elif self.path == "/v1/chat/completions":
            self.complete(body)
        else:
            self.reply({"detail": "Not Found"}, 404)

    def complete(self, question: dict[str, Any]) -> None:
        hangs = "hangs-later" in FAULTS and (STATE / "hang").exists()
        if hangs or "chat-hangs" in FAULTS or (woken and "wake-hangs" in FAULTS) or asleep:
            HANG.wait()
        if "chat-kills" in FAULTS:
            os._exit(9)
        content = json.dumps(smallest(question["response_format"]["json_schema"]["schema"]))
        reason = "stop"
        if "blanks" in FAULTS:
            content, reason = '{"seen":' + " " * 500, "length"
        if woken and "wake-garbage" in FAULTS:
            content = '{"seen":"!!!!'
        self.reply({"choices": [{"finish_reason": reason, "message": {"content": content}}]})

    def log_message(self, *_: object) -> None:
        pass


def smallest(schema: dict[str, Any]) -> Any:
    """Return the smallest value that a schema allows."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] == "object":
        return {name: smallest(inner) for name, inner in schema["properties"].items()}
    if schema["type"] == "array":
        return [smallest(schema["items"])]
    return {"string": "x", "number": 0.5, "boolean": True}[schema["type"]]


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    started = {"pid": os.getpid(), "argv": sys.argv[1:], "environment": dict(os.environ)}
    earlier = [json.loads(file.read_text())["pid"] for file in STATE.glob("start-*.json")]
    started["beside"] = [pid for pid in earlier if running(pid)]
    if "grandchild" in FAULTS:  # in a session of its own, so beyond the reach of killpg
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        started["grandchild"] = child.pid
    temporary = STATE / f"start-{START}.tmp"
    temporary.write_text(json.dumps(started))
    temporary.rename(STATE / f"start-{START}.json")
    print(f"fake vLLM, start {START}: {sorted(FAULTS)}", flush=True)
    if "ignores-sigterm" in FAULTS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "never-ready" in FAULTS:
        time.sleep(600)
    if "no-vllm" in FAULTS:
        sys.exit(f"{sys.executable}: No module named vllm")
    if "port-taken" in FAULTS:
        sys.exit("OSError: [Errno 98] Address already in use")
    if "log" in FAULTS:  # as long as a real one's: what matters stands far above its end
        print((STATE / "log").read_text(), flush=True)
        sys.exit(1)
    if "dies" in FAULTS:
        print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", flush=True)
        sys.exit(3)
    ThreadingHTTPServer((FLAGS["host"], int(FLAGS["port"])), Handler).serve_forever()


if __name__ == "__main__":
    main()

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from npc_local.backends.canary import canary
from npc_local.backends.chat import ChatBackend
from npc_local.backends.vllm import server as vllm_server
from npc_local.backends.vllm.command import check_directory, command, environment
from npc_local.backends.vllm.server import VllmServer
from npc_local.backends.vllm.watchdog import Guarded
from npc_local.core.config.settings import ChatBackendSettings, ServerSettings
from npc_local.core.errors import BackendError, BackendLostError, ConfigError, ModelFilesError

FAKE = Path(__file__).with_name("fake_vllm.py")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"vision_config": {}}')
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    for name in ("tokenizer.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    (folder / "chat_template.jinja").write_text("")
    return folder


@pytest.fixture
def python(tmp_path: Path) -> Path:
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def settings(model: Path, python: Path, state: Path) -> Callable[..., ChatBackendSettings]:
    def make(faults: str = "", timeout: float = 5, **server: Any) -> ChatBackendSettings:
        variables = {"FAKE_STATE": str(state), "FAKE_FAULTS": faults}
        variables |= server.pop("environment", {})
        entry: dict[str, Any] = {"start_timeout": 20.0, "model": model, "python": python}
        made = ServerSettings(**(entry | server), environment=variables)
        return ChatBackendSettings(kind="vllm", model="qwen", server=made, timeout=timeout)

    return make


@pytest.fixture(autouse=True)
def impatient(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(vllm_server, "_GRACE", 1.0)
    monkeypatch.setattr(vllm_server, "_POLL", 0.05)
    monkeypatch.setattr(vllm_server, "_LAST_BREATH", 1.0)


def starts(state: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(state.glob("start-*.json"))]


def requests(state: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (state / "requests.jsonl").read_text().splitlines()]


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc").exists()


def gone(pids: list[int], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(map(running, pids)):
        time.sleep(0.05)
    return not any(map(running, pids))


def live(server: VllmServer, story: Callable[[], Any]) -> Any:
    """Run a story about a server, which is stopped afterwards whatever happens."""

    async def run() -> Any:
        try:
            return await asyncio.wait_for(story(), 60)
        finally:
            await server.stop()

    return asyncio.run(run())


def server_of(settings, log=None, on_status=lambda line: None, *, name="qwen", sees=True):
    """Return the server that stands behind a chat backend."""
    made = partial(VllmServer, name, settings, log=log, on_status=on_status)
    return ChatBackend(name, settings, server=made, sees=sees, on_status=on_status).server


def fails_to_start(settings: ChatBackendSettings, log: Path | None = None) -> str:
    server = server_of(settings, log)
    with pytest.raises(BackendError) as caught:
        live(server, server.start)
    assert not server.alive()
    return str(caught.value)


# ---- start and stop ------------------------------------------------------------------------------


def test_starts_answers_stops(settings, state, tmp_path):
    log = tmp_path / "run" / "qwen.log"
    server = server_of(settings(), log)

    async def story() -> str:
        base = await server.start()
        assert server.alive()
        assert server.base_url == base
        assert await server.start() == base == await server.ensure()
        return base

    base = live(server, story)
    assert base.startswith("http://127.0.0.1:")
    assert base.endswith("/v1")
    assert not server.alive()
    [started] = starts(state)
    assert gone([started["pid"]], 0)
    assert "fake vLLM, start 1" in log.read_text()
    with pytest.raises(BackendError, match="not running"):
        _ = server.base_url


def test_ready_means_an_answer_about_an_image_by_a_schema(settings, state):
    server = server_of(settings())
    live(server, server.start)
    [[path, question]] = requests(state)
    assert path == "/v1/chat/completions"
    [image, _] = question["messages"][-1]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert question["response_format"]["json_schema"]["schema"]["additionalProperties"] is False


def test_a_model_that_is_asked_about_words_alone_is_shown_no_image(settings, state):
    server = server_of(settings(), sees=False)
    live(server, server.start)
    [[_, question]] = requests(state)
    assert isinstance(question["messages"][-1]["content"], str)


def test_can_be_started_again_after_a_stop(settings, state):
    server = server_of(settings(restarts=0))

    async def story() -> None:
        await server.start()
        await server.stop()
        await server.stop()
        await server.ensure()

    live(server, story)
    assert len(starts(state)) == 2


def test_overlapping_calls_start_one_server(settings, state):
    server = server_of(settings())

    async def story() -> set[str]:
        return set(await asyncio.gather(server.start(), server.ensure(), server.ensure()))

    assert len(live(server, story)) == 1
    assert len(starts(state)) == 1


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("stopped", [True, False], ids=["by stop", "with the loop"])
def test_a_start_that_is_cancelled_ends(settings, state, stopped):
    server = server_of(settings("never-ready"))

    async def story() -> None:
        task = asyncio.create_task(server.start())
        while not starts(state):
            await asyncio.sleep(0.05)
        await cancelled(task)
        if stopped:
            await server.stop()

    asyncio.run(story())
    assert not server.alive()
    assert gone([starts(state)[0]["pid"]], 0)


def test_a_start_serves_others_when_one_caller_is_cancelled(settings, state):
    server = server_of(settings())

    async def story() -> None:
        first, second = (asyncio.create_task(server.ensure()) for _ in range(2))
        await asyncio.sleep(0.01)
        await cancelled(first)
        assert await second == await server.ensure()

    live(server, story)
    assert len(starts(state)) == 1


def test_nothing_starts_for_callers_that_were_cancelled_before(settings, state):
    server = server_of(settings())

    async def story() -> None:
        async with server._turn:
            task = asyncio.create_task(server.start())
            await asyncio.sleep(0.01)
            await cancelled(task)
        await asyncio.sleep(0.01)
        assert server._first_start.idle

    live(server, story)
    assert not starts(state)


def test_a_failure_that_nobody_waits_for_is_no_noise(settings, state, caplog):
    server = server_of(settings("dies", restarts=0))

    async def story() -> None:
        task = asyncio.create_task(server.start())
        await asyncio.sleep(0.01)
        await cancelled(task)
        while not server._first_start.idle:
            await asyncio.sleep(0.05)
        with pytest.raises(BackendError, match="ended with exit status 3"):
            await server.ensure()

    live(server, story)
    assert "never retrieved" not in caplog.text


def test_a_stop_ends_a_start_in_another_task(settings, state):
    server = server_of(settings("never-ready"))

    async def story() -> None:
        task = asyncio.create_task(server.start())
        while not starts(state):
            await asyncio.sleep(0.05)
        await server.stop()
        with pytest.raises(BackendError, match="was stopped"):
            await task

    live(server, story)
    assert gone([starts(state)[0]["pid"]], 0)


def test_a_stop_is_not_outrun_by_a_start_that_has_no_process_yet(settings, state, monkeypatch):
    server = server_of(settings("never-ready"))
    checked = threading.Event()

    def slow(*_: object) -> bool:
        checked.wait()
        return True

    monkeypatch.setattr(vllm_server, "check_directory", slow)

    async def story() -> None:
        start = asyncio.create_task(server.start())
        await asyncio.sleep(0.01)
        stop = asyncio.create_task(server.stop())
        await asyncio.sleep(0.01)
        checked.set()
        await stop
        with pytest.raises(BackendError, match="was stopped"):
            await start

    live(server, story)
    assert not starts(state)


def test_no_second_server_beside_one_that_still_ends(settings, state):
    """A server that takes its time to end, and a caller that does not wait for that."""
    server = server_of(settings("ignores-sigterm", restarts=0))

    async def story() -> None:
        await server.start()
        task = asyncio.create_task(server.sleep())
        await asyncio.sleep(0.2)
        await cancelled(task)
        assert running(starts(state)[0]["pid"])
        assert not server.alive()
        await server.ensure()

    live(server, story)
    assert [start["beside"] for start in starts(state)] == [[], []]


def test_two_who_stop_both_wait_until_it_is_gone(tmp_path):
    line = ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"]
    log = tmp_path / "log"
    guarded = Guarded(line, environment=dict(os.environ), directory=tmp_path, log=log, grace=1)
    while log.read_text() != "up\n":
        time.sleep(0.01)
    first = threading.Thread(target=guarded.stop)
    first.start()
    time.sleep(0.2)
    assert guarded.status is None
    guarded.stop()
    assert guarded.status == 137
    first.join()


@pytest.mark.parametrize("faults", ["ignores-sigterm", "grandchild", "ignores-sigterm,grandchild"])
def test_stop_ends_everything(settings, state, faults):
    server = server_of(settings(faults))
    live(server, server.start)
    [started] = starts(state)
    assert gone([started["pid"], started.get("grandchild", started["pid"])], 0)


# ---- starts that fail ----------------------------------------------------------------------------


def test_never_ready(settings, state, tmp_path):
    log = tmp_path / "qwen.log"
    message = fails_to_start(settings("never-ready", start_timeout=1.5), log)
    assert "backend qwen: its server was not ready after 1.5 s" in message
    assert "fake vLLM, start 1" in message
    assert str(log) in message
    assert gone([starts(state)[0]["pid"]], 0)


def test_death_at_start_shows_the_log_and_what_to_do(settings, state):
    message = fails_to_start(settings("dies", restarts=3))
    assert "ended with exit status 3" in message
    assert "Tried to allocate 2 GiB" in message
    assert "lower gpu_memory_utilization" in message
    assert len(starts(state)) == 1  # a first start that fails will fail again
    kept = message.split("Its log, ")[1].split(", says")[0]
    assert "CUDA out of memory" in Path(kept).read_text()


def test_a_python_without_vllm(settings, tmp_path):
    assert "has no vLLM; set server.python" in fails_to_start(settings("no-vllm"), tmp_path / "log")


def test_an_interpreter_that_cannot_run(settings, tmp_path, python):
    python.write_text("#!/nowhere/at/all\n")
    message = fails_to_start(settings(), tmp_path / "log")
    assert "ended with exit status 127" in message
    assert "No such file" in message


def test_another_model_behind_the_port(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_server, "_STRANGER", 0.5)
    message = fails_to_start(settings("wrong-model"), tmp_path / "log")
    assert "serves stranger" in message
    assert "not qwen" in message


def test_green_health_and_hanging_chat(settings, tmp_path):
    message = fails_to_start(settings("chat-hangs", timeout=0.5), tmp_path / "log")
    assert "no valid answer to a test question: no answer within 0.5 s (timeout)" in message


def test_blanks_without_end(settings, tmp_path):
    message = fails_to_start(settings("blanks"), tmp_path / "log")
    assert "no valid answer to a test question: no valid reply in 3 tries" in message
    assert "ran away into blanks until 1024 tokens" in message


KV_CACHE = (
    "(EngineCore pid=7) ERROR 11-29 10:00:00 [core.py:936] ValueError: To serve at least one "
    "request with the model's max seq len (8192), 1.00 GiB KV cache is needed, which is larger "
    "than the available KV cache memory (0.42 GiB)."
)


def test_the_cause_is_found_far_above_the_end_of_the_log(settings, state, tmp_path):
    log = tmp_path / "log"
    log.write_text("torch.OutOfMemoryError: of an earlier start\n")
    (state / "log").write_text("\n".join([KV_CACHE, *["  File x, line 1"] * 200]))
    message = fails_to_start(settings("log"), log)
    first, second = message.splitlines()
    assert first.startswith(
        "backend qwen: its server ended with exit status 1; its share of the GPU"
    )
    assert "lower max_model_len" in first
    assert second.startswith(f"Its log, {log}, says: ValueError: To serve at least one request")


def test_a_server_that_was_killed_takes_one_line(settings, state, tmp_path):
    log = tmp_path / "log"
    server = server_of(settings(restarts=0), log)

    async def story() -> str:
        await server.start()
        os.kill(starts(state)[-1]["pid"], signal.SIGKILL)
        while server.alive():
            await asyncio.sleep(0.05)
        for _ in range(2):
            with pytest.raises(BackendLostError) as caught:
                await server.ensure()
            assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    message = live(server, story)
    assert message.startswith("backend qwen: its server was killed with exit status 137; if nobody")
    assert message.endswith(f"its log: {log}")


def test_its_programs_are_found_though_nobody_activated_its_environment(settings, python, tmp_path):
    entry = settings(python=tmp_path / "venv" / "bin" / "python")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(python)
    path = environment("qwen", entry.server)["PATH"].split(os.pathsep)
    assert path[0] == str(tmp_path / "venv" / "bin")
    assert path[1:] == os.environ["PATH"].split(os.pathsep)
    own = settings(environment={"PATH": "/opt/mine"})
    assert environment("qwen", own.server)["PATH"] == "/opt/mine"


def doubtful(entry: ChatBackendSettings, state: Path, hanging: int, lines: list[str]) -> VllmServer:
    """Return a server whose first `hanging` starts answer nothing once `hang` is there."""

    async def ready(base: str) -> None:
        if (state / "hang").exists() and len(starts(state)) <= hanging:
            raise BackendError("no answer within 5 s (timeout)")

    return VllmServer("qwen", entry, ready, on_status=lines.append)


def test_a_server_that_hangs_is_started_again_for_all_who_wait(settings, state):
    lines: list[str] = []
    server = doubtful(settings(), state, 1, lines)

    async def story() -> list[bool]:
        await server.start()
        (state / "hang").touch()
        return await asyncio.gather(*(server.revive() for _ in range(3)))

    assert live(server, story) == [True] * 3
    assert len(starts(state)) == 2
    [again] = [line for line in lines if "starting it again" in line]
    assert "answers nothing any more: it gives no valid answer to a test question" in again


def test_a_server_that_was_stopped_by_a_signal_is_started_again(settings, state):
    server = doubtful(settings(), state, 1, [])

    async def story() -> bool:
        await server.start()
        os.kill(starts(state)[0]["pid"], signal.SIGSTOP)
        (state / "hang").touch()
        return await server.revive()

    assert live(server, story) is True
    first, second = starts(state)
    assert gone([first["pid"], second["pid"]])


def test_a_server_that_answers_is_left_alone(settings, state):
    server = server_of(settings())

    async def story() -> bool:
        await server.start()
        return await server.revive()

    assert live(server, story) is False
    assert len(starts(state)) == 1


def test_a_server_that_hangs_too_often_is_lost(settings, state):
    server = doubtful(settings(restarts=0), state, 1, [])

    async def story() -> None:
        await server.start()
        (state / "hang").touch()
        for _ in range(2):
            with pytest.raises(BackendLostError, match="answers nothing any more"):
                await server.revive()

    live(server, story)
    assert len(starts(state)) == 1
    assert BackendLostError.ends_run


def test_a_question_that_hung_is_asked_anew_of_the_server_that_was_started_again(settings, state):
    entry = settings("hangs-later:1", timeout=3)
    made = partial(VllmServer, "qwen", entry, on_status=lambda line: None)
    chat = ChatBackend("qwen", entry, server=made, on_status=lambda line: None)

    async def story() -> dict[str, Any]:
        await chat.check()
        (state / "hang").touch()
        return (await chat.complete(canary(sees=False))).data

    answer = asyncio.run(_closing(chat, story))
    assert answer == {"seen": True, "colours": [{"colour": "red", "share": 0.5}], "reason": "x"}
    assert len(starts(state)) == 2


async def _closing(chat: ChatBackend, story: Callable[[], Any]) -> Any:
    try:
        return await asyncio.wait_for(story(), 60)
    finally:
        await chat.aclose()


def test_death_at_the_first_question(settings, tmp_path):
    assert "ended with exit status 9" in fails_to_start(settings("chat-kills"), tmp_path / "log")


def test_a_port_taken_meanwhile_is_not_the_end(settings, state):
    server = server_of(settings("port-taken:2", restarts=0))
    live(server, server.start)
    ports = {arg for start in starts(state) for arg in start["argv"] if arg.startswith("--port=")}
    assert len(ports) == 3


def test_a_port_always_taken_is(settings, state, tmp_path):
    message = fails_to_start(settings("port-taken"), tmp_path / "log")
    assert "Address already in use" in message
    assert len(starts(state)) == 3


def test_no_port_at_all(settings, state, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("Cannot assign requested address")

    monkeypatch.setattr("socket.create_server", refuse)
    message = fails_to_start(settings(), tmp_path / "log")
    assert "no port of 127.0.0.1 can be had: Cannot assign requested address" in message
    assert not starts(state)


def test_a_log_that_cannot_be_written(settings, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write its log" in fails_to_start(settings(), tmp_path / "file" / "log")


def test_a_temporary_log_is_removed_after_success(settings, tmp_path):
    server = server_of(settings(), name="q/w")

    async def story() -> None:
        await server.start()
        assert len(list(tmp_path.glob("npc-local-q-w-*.log"))) == 1

    live(server, story)
    assert not list(tmp_path.glob("npc-local-q-w-*.log"))


def test_a_start_and_a_long_one_again_and_again_are_told_of(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_server, "_NEWS", 0.3)
    lines: list[str] = []
    log = tmp_path / "log"
    server = server_of(settings("never-ready", start_timeout=2.0), log, lines.append)
    with pytest.raises(BackendError):
        live(server, server.start)
    assert lines[0] == f"backend qwen: starting vLLM with {tmp_path / 'model'} (log: {log})"
    assert any(
        re.fullmatch(r"backend qwen: starting for \d+ s: fake vLLM, start 1.*", line)
        for line in lines[1:]
    )


# ---- death ---------------------------------------------------------------------------------------


def test_a_dead_server_is_started_again_only_so_often(settings, state):
    server = server_of(settings(restarts=2))

    async def story() -> None:
        await server.start()
        for count in (1, 2, 3):
            os.kill(starts(state)[-1]["pid"], signal.SIGKILL)
            while server.alive():
                await asyncio.sleep(0.05)
            if count <= 2:
                await server.ensure()
            assert len(starts(state)) == min(count + 1, 3)
        for _ in range(2):
            with pytest.raises(BackendError, match=r"status 137; restarts = 2 used up"):
                await server.ensure()

    live(server, story)
    assert len(starts(state)) == 3


def test_a_restart_is_not_used_up_by_a_caller_that_is_cancelled(settings, state):
    server = server_of(settings(restarts=1))

    async def story() -> None:
        await server.start()
        os.kill(starts(state)[0]["pid"], signal.SIGKILL)
        while server.alive():
            await asyncio.sleep(0.05)
        one, other = (asyncio.create_task(server.ensure()) for _ in range(2))
        await asyncio.sleep(0.01)
        await cancelled(one)
        await cancelled(other)
        await server.ensure()

    live(server, story)
    assert len(starts(state)) == 2


def test_a_restart_that_fails_counts(settings, state, tmp_path):
    server = server_of(settings(restarts=2), tmp_path / "log")

    async def story() -> None:
        await server.start()
        # Every later start finds the model directory gone, as on a disk that was unplugged.
        (server.server.model / "config.json").unlink()
        os.kill(starts(state)[0]["pid"], signal.SIGKILL)
        while server.alive():
            await asyncio.sleep(0.05)
        for _ in range(2):
            with pytest.raises(ModelFilesError):
                await server.ensure()
        with pytest.raises(BackendError, match="restarts = 2 used up"):
            await server.ensure()

    live(server, story)


# ---- sleep ---------------------------------------------------------------------------------------


def test_sleeps_and_wakes(settings, state):
    server = server_of(settings(sleep=True))

    async def story() -> None:
        base = await server.start()
        await server.sleep()
        await server.sleep()
        assert server.alive()
        await server.wake()
        assert server.base_url == base

    live(server, story)
    paths = [path for path, _ in requests(state)]
    chat = "/v1/chat/completions"
    assert paths == [chat, "/sleep?level=1", "/wake_up", chat]
    [started] = starts(state)
    assert "--enable-sleep-mode" in started["argv"]
    assert started["environment"]["VLLM_SERVER_DEV_MODE"] == "1"


def test_a_request_wakes_it(settings, state):
    server = server_of(settings(sleep=True))

    async def story() -> None:
        await server.start()
        await server.sleep()
        await server.ensure()

    live(server, story)
    assert "/wake_up" in [path for path, _ in requests(state)]


@pytest.mark.parametrize("fault", ["wake-fails", "wake-garbage", "wake-hangs"])
def test_a_server_that_does_not_wake_is_started_again_once(settings, state, tmp_path, fault):
    server = server_of(settings(fault, sleep=True, timeout=0.5), tmp_path / "log")

    async def story() -> None:
        await server.start()
        await server.sleep()
        await server.wake()
        assert len(starts(state)) == 2
        await server.sleep()
        with pytest.raises(BackendError, match="did not wake up"):
            await server.wake()
        assert not server.alive()

    live(server, story)
    assert len(starts(state)) == 2


@pytest.mark.parametrize(("sleep", "fault"), [(False, ""), (True, "sleep-fails")])
def test_what_cannot_sleep_is_stopped(settings, state, sleep, fault):
    server = server_of(settings(fault, sleep=sleep, restarts=0))

    async def story() -> None:
        await server.start()
        await server.sleep()
        assert not server.alive()
        assert gone([starts(state)[0]["pid"]], 0)
        await server.wake()
        assert server.alive()

    live(server, story)
    assert len(starts(state)) == 2


# ---- no orphans ----------------------------------------------------------------------------------

_PARENT = """
import asyncio, json, sys, time
from pathlib import Path
from npc_local.backends.vllm.server import VllmServer
from npc_local.core.config.settings import ChatBackendSettings, ServerSettings

server = ServerSettings(**json.loads(sys.argv[1]))
async def ready(base):
    pass

settings = ChatBackendSettings(kind="vllm", model="qwen", server=server)
server = VllmServer("qwen", settings, ready)
asyncio.run(server.start())
print("started", flush=True)
{then}
"""


@pytest.mark.parametrize(
    ("then", "ends"),
    [
        ("time.sleep(600)", signal.SIGKILL),
        ("import os\nif os.fork() == 0: time.sleep(20)\ntime.sleep(600)", signal.SIGKILL),
        ("time.sleep(600)", signal.SIGTERM),
        ("raise SystemExit", None),
    ],
    ids=["SIGKILL", "SIGKILL with a fork left", "SIGTERM", "exit"],
)
def test_no_process_outlives_its_parent(settings, state, tmp_path, then, ends):
    made = settings("grandchild").server.model_dump_json()
    code = _PARENT.format(then=then)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", code, made],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        [started] = starts(state)
        pids = [started["pid"], started["grandchild"]]
        if ends is not None:
            assert all(map(running, pids))
            parent.send_signal(ends)
        parent.wait(30)
        assert gone(pids)
    finally:
        parent.kill() if parent.poll() is None else None
        parent.stdout.close()


def test_the_server_ends_with_its_watchdog(settings, state):
    server = server_of(settings())

    async def story() -> None:
        await server.start()
        assert server._guarded is not None
        server._guarded._script.kill()
        assert gone([starts(state)[0]["pid"]])
        assert not server.alive()

    live(server, story)


# ---- what it is started with ---------------------------------------------------------------------


def test_flags(settings, state, model, python):
    server = server_of(settings(arguments=["--enforce-eager", "--max-num-seqs=4"]))
    live(server, server.start)
    argv = starts(state)[0]["argv"]
    assert argv[:2] == ["-m", "vllm.entrypoints.openai.api_server"]
    for flag in (
        f"--model={model}",
        "--served-model-name=qwen",
        "--host=127.0.0.1",
        '--structured-outputs-config={"backend":"xgrammar","disable_any_whitespace":true}',
        "--allowed-media-domains=invalid.invalid",
        "--gpu-memory-utilization=0.35",
        "--max-model-len=8192",
        "--dtype=auto",
        "--load-format=safetensors",
        "--disable-fastapi-docs",
    ):
        assert flag in argv
    assert argv[-2:] == ["--enforce-eager", "--max-num-seqs=4"]
    assert not any("sleep" in flag or "trust" in flag for flag in argv)


def test_environment_is_an_allowlist_with_every_switch(settings, state, monkeypatch):
    for name in ("HTTP_PROXY", "https_proxy", "ALL_PROXY", "OPENAI_API_KEY", "HF_TOKEN", "VLLM_X"):
        monkeypatch.setenv(name, "http://192.0.2.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    server = server_of(settings(environment={"VLLM_CPU_KVCACHE_SPACE": "1"}))
    live(server, server.start)
    seen = starts(state)[0]["environment"]
    assert "192.0.2.1" not in json.dumps(seen)
    assert seen["CUDA_VISIBLE_DEVICES"] == "1"
    assert seen["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert seen["PATH"].endswith(os.environ["PATH"])
    switches = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_USE_MODELSCOPE": "0",
        "VLLM_PLUGINS": "",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_SERVER_DEV_MODE": "0",
    }
    assert {name: seen.get(name) for name in switches} == switches


@pytest.mark.parametrize(
    ("name", "value"),
    [("VLLM_HOST_IP", "0.0.0.0"), ("HF_HUB_OFFLINE", "0"), ("https_proxy", "http://127.0.0.1:9")],
)
def test_variables_that_would_open_it_are_refused(settings, name, value):
    server = server_of(settings(environment={name: value}))
    with pytest.raises(ConfigError, match=rf"backends\.qwen\.server\.environment: {name}"):
        live(server, server.start)


@pytest.mark.parametrize(
    "argument",
    [
        "--trust-remote-code",
        "--trust_remote_code",
        "--trust",
        "--host=0.0.0.0",
        "--port",
        "--config=x.yaml",
        "--structured-outputs-config.backend=auto",
        "--allowed-media-domains",
        "--allowed-local-media-path=/",
        "--load_format=pt",
        "--api-key",
        "--middleware=a.b",
        "--worker-extension-cls",
        "--worker_cls=a.B",
        "--logits-processors",
        "--scheduler-cls",
        "--model-class-overrides",
        "--distributed-executor-backend=a.B",
        "--otlp-traces-endpoint",
        "--data-parallel-address=0.0.0.0",
        "-dpa",
        "-dpa=0.0.0.0",
        "--master-addr",
        "--kv-transfer-config.kv_connector=X",
        "--kv-events-config",
        "--ssl-keyfile",
        "--ssl-c",
        "--root-path",
        "--allowed-origins",
        "--log-config-file",
        "--tool-server=demo",
    ],
)
def test_flags_that_would_open_it_are_refused(settings, argument):
    made = settings(arguments=[argument])
    with pytest.raises(ConfigError, match="cannot be set here"):
        command("qwen", made, made.server, 1)


@pytest.mark.parametrize(
    "argument", ["--max-model-len=512", "-tp", "-dp", "--limit-mm-per-prompt", "--log-level", "4"]
)
def test_other_flags_are_free(settings, argument):
    made = settings(arguments=[argument])
    assert command("qwen", made, made.server, 1)[-1] == argument


def test_no_interpreter(settings, tmp_path):
    server = server_of(settings(python=tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"server\.python: .*none: no such file"):
        live(server, server.start)


def test_an_entry_without_a_server():
    entry = ChatBackendSettings(kind="vllm", model="qwen", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(ConfigError, match="has no server"):
        VllmServer("qwen", entry, ready=lambda base: asyncio.sleep(0))


# ---- the model directory -------------------------------------------------------------------------


def test_a_complete_directory(settings, model):
    check_directory(settings().server)


def test_a_chat_template_may_be_elsewhere(settings, model):
    (model / "chat_template.jinja").unlink()
    check_directory(settings(arguments=["--chat-template", "x.jinja"]).server)
    (model / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    check_directory(settings().server)


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("config.json", "config.json: missing"),
        ("model.safetensors", r"no weights: \*\.safetensors"),
        ("tokenizer.json", r"no tokenizer\.json"),
        ("preprocessor_config.json", "the image processor's configuration is missing"),
        ("chat_template.jinja", "no chat template"),
    ],
)
def test_what_is_missing_is_named_before_anything_starts(settings, state, model, missing, says):
    (model / missing).unlink()
    server = server_of(settings())
    with pytest.raises(ModelFilesError, match=says):
        live(server, server.start)
    assert not starts(state)


def test_no_directory(settings, tmp_path):
    with pytest.raises(ModelFilesError, match="no such directory"):
        check_directory(settings(model=tmp_path / "none").server)


def test_weights_cut_off(settings, model):
    (model / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{")
    with pytest.raises(ModelFilesError, match="damaged"):
        check_directory(settings().server)


def test_pickled_weights(settings, model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ModelFilesError, match="pickled weights"):
        check_directory(settings().server)

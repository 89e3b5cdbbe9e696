"""What a stage costs: denoiser forwards, tokens, seconds, memory.

`agents` counts each reply here; `run.stages` reads the meter around the work of one stage. Without
a meter running, counting does nothing.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_KIB = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss


@dataclass(frozen=True, slots=True)
class Cost:
    """What some work took.

    `calls` are answers of agents, with what was asked again; `seconds` is work, waiting for a free
    device apart; `peak_bytes` is the most memory that the process has held until then, on the GPU
    if it uses one.
    """

    forwards: int = 0
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0


@dataclass(slots=True)
class Meter:
    """Counts while some work is under way."""

    forwards: int = 0
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0

    def cost(self) -> Cost:
        """Return what the work has taken."""
        tokens = self.tokens_in, self.tokens_out
        return Cost(self.forwards, self.calls, *tokens, self.seconds, peak_memory())


_running: ContextVar[Meter | None] = ContextVar("_running", default=None)


@contextmanager
def metering() -> Iterator[Meter]:
    """Count what is done inside, in this task and in those that it starts."""
    meter = Meter()
    token = _running.set(meter)
    try:
        yield meter
    finally:
        _running.reset(token)


def count_reply(usage: Mapping[str, int]) -> None:
    """Count one answer of an agent and its tokens, in the names of OpenAI's protocol."""
    if (meter := _running.get()) is not None:
        meter.calls += 1
        meter.tokens_in += usage.get("prompt_tokens", 0)
        meter.tokens_out += usage.get("completion_tokens", 0)


def count_forwards(forwards: int) -> None:
    """Count passes through the denoiser."""
    if (meter := _running.get()) is not None:
        meter.forwards += forwards


@contextmanager
def working() -> Iterator[None]:
    """Count the seconds inside; waiting stays outside."""
    begun = time.perf_counter()
    try:
        yield
    finally:
        if (meter := _running.get()) is not None:
            meter.seconds += time.perf_counter() - begun


def peak_memory() -> int:
    """Return the bytes of the most memory held so far: on the GPU if one is in use, else of RAM."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB

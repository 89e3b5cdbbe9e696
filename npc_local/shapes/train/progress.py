"""What a long training run shows and keeps: time left, a log, checkpoints written whole."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch
from torch import Tensor


class Stateful(Protocol):
    """A model or an optimizer."""

    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...  # noqa: D102


Part = Stateful | Sequence[Stateful]


class Means:
    """Means of measurements since they were last taken."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, **values: Tensor) -> None:
        """Take in the measurements of one step."""
        for name, value in values.items():
            self._values[name].append(float(value.detach()))

    def take(self) -> dict[str, float]:
        """The means; starts over."""
        means = {name: fmean(values) for name, values in self._values.items()}
        self._values.clear()
        return means


class Run:
    """One stage's working directory: log.jsonl, checkpoint.pt, progress on the terminal."""

    def __init__(self, work: Path, stage: str, steps: int) -> None:
        self.dir = work / stage
        self.dir.mkdir(parents=True, exist_ok=True)
        self.stage, self.steps = stage, steps
        self._log = self.dir / "log.jsonl"
        self._checkpoint = self.dir / "checkpoint.pt"

    def resume(self, **parts: Part) -> int:
        """Load the last checkpoint into `parts`; return the step to go on with, 0 if none."""
        if not self._checkpoint.exists():
            return 0
        # Our own file, tensors and plain values only.
        state: dict[str, Any] = torch.load(self._checkpoint, weights_only=True)
        for name, part in parts.items():
            if isinstance(part, Sequence):
                for member, saved in zip(part, state[name], strict=True):
                    member.load_state_dict(saved)
            else:
                part.load_state_dict(state[name])
        torch.set_rng_state(state["random"])
        return int(state["step"])

    def save(self, step: int, **parts: Part) -> None:
        """Write a checkpoint so that a kill at any moment leaves the old or the new one."""
        state: dict[str, Any] = {"step": step, "random": torch.get_rng_state()}
        for name, part in parts.items():
            if isinstance(part, Sequence):
                state[name] = [member.state_dict() for member in part]
            else:
                state[name] = part.state_dict()
        fresh = self._checkpoint.with_suffix(".tmp")
        torch.save(state, fresh)
        os.replace(fresh, self._checkpoint)

    def due(self, step: int, every: int) -> bool:
        """Whether `step` steps done is a time to log or to save: a round number, or the last."""
        return step % every == 0 or step == self.steps

    def log(self, step: int, **values: float) -> None:
        """Append one line of measurements and print it."""
        row = {"step": step, **{name: round(value, 5) for name, value in values.items()}}
        with self._log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"[{self.stage}] " + " ".join(f"{k}={v}" for k, v in row.items()), flush=True)

    def count(self, start: int = 0) -> Iterator[int]:
        """Yield the steps from `start`, printing speed and time left now and then."""
        began = last = time.monotonic()
        for step in range(start, self.steps):
            yield step
            now = time.monotonic()
            if now - last > 20:
                last = now
                rate = (step + 1 - start) / (now - began)
                left = (self.steps - step - 1) / rate
                print(
                    f"[{self.stage}] step {step + 1}/{self.steps}, {rate:.2f} steps/s, "
                    f"{left / 60:.1f} min left",
                    flush=True,
                )

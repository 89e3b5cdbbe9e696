"""What a long training run shows and keeps: time left, a log, checkpoints written whole."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


class Run:
    """One stage's working directory: log.jsonl, checkpoint.pt, progress on the terminal."""

    def __init__(self, work: Path, stage: str, steps: int) -> None:
        self.dir = work / stage
        self.dir.mkdir(parents=True, exist_ok=True)
        self.stage, self.steps = stage, steps
        self._log = self.dir / "log.jsonl"
        self._checkpoint = self.dir / "checkpoint.pt"

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, if any. Our own file, tensors and plain values only."""
        if not self._checkpoint.exists():
            return None
        state: dict[str, Any] = torch.load(self._checkpoint, weights_only=True)
        return state

    def save(self, **state: Any) -> None:
        """Write a checkpoint so that a kill at any moment leaves the old or the new one."""
        fresh = self._checkpoint.with_suffix(".tmp")
        torch.save(state | {"random": torch.get_rng_state()}, fresh)
        os.replace(fresh, self._checkpoint)

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

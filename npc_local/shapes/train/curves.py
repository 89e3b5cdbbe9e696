"""Draws the denoiser's training log: losses, and how much the text is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def draw_curves(work: Path, out: Path) -> None:
    """Write a picture of `work`/denoiser/log.jsonl to `out`. Needs the extra `train`."""
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in (work / "denoiser" / "log.jsonl").read_text().splitlines()]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    losses, reading, right = figure.subplots(1, 3)
    _line(losses, rows, "flow", "flow-matching loss")
    losses.set(title="training loss", yscale="log")
    for caption, style in (("right", "-"), ("none", "--"), ("other", ":")):
        _line(reading, rows, f"{caption}@0.8", f"{caption} caption", style)
    reading.set(title="loss at t = 0.8, moving average", yscale="log")
    _line(right, rows, "right", "right samples, CFG 3")
    right.set(title="share of training-side prompts met", ylim=(0, 1))
    for axes in (losses, reading, right):
        axes.set_xlabel("step")
        axes.legend(frameon=False)
    figure.savefig(out, dpi=110)


def _line(axes: Any, rows: list[dict[str, float]], key: str, label: str, style: str = "-") -> None:
    points = [(row["step"], row[key]) for row in rows if key in row]
    if points:
        axes.plot(*zip(*points, strict=True), style, label=label)

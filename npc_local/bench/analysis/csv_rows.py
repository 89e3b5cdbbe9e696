"""A summary as CSV: one number a line, what the paper published under a source of its own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from npc_local.bench.analysis.summary import ArmSummary, Summary

HEAD = ("source", "arm", "group", "measure", "value", "low_95", "high_95", "images", "errors")
_OURS = "npc-local"
_NOTHING = (None, None)
_Cells = Sequence[str | float | None]


def to_csv(summary: Summary) -> str:
    """Return the numbers of a summary, one a line under `HEAD`; empty: withheld, or none."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HEAD)
    for row in _csv_rows(summary):
        writer.writerow(["" if cell is None else cell for cell in row])
    return stream.getvalue()


def _csv_rows(summary: Summary) -> Iterator[_Cells]:
    for name, arm in summary.arms.items():
        yield from _arm_rows(summary, name, arm)
    for pair in summary.pairs:
        name = f"{pair.first} -> {pair.second}"
        sure = pair.interval_95 or _NOTHING
        yield _OURS, name, "", "difference", pair.difference, *sure, None, None
        for key, value in (
            ("only_first", pair.only_first),
            ("only_second", pair.only_second),
            ("p", pair.p),
        ):
            yield _OURS, name, "", key, value, *_NOTHING, None, None
    for key, value in asdict(summary.agreement).items():
        yield _OURS, "", "", f"judge and verifier: {key}", value, *_NOTHING, None, None
    for kind, spent in summary.costs.items():
        for key, value in asdict(spent).items():
            yield _OURS, "", kind, f"cost: {key}", value, *_NOTHING, None, None
    for figure in summary.published:
        measure = f"{figure.what} ({figure.unit})"
        yield figure.source, figure.arm, "", measure, figure.value, *_NOTHING, None, None


def _arm_rows(summary: Summary, name: str, arm: ArmSummary) -> Iterator[_Cells]:
    errors = arm.errors.loop + arm.errors.judge
    for group_name, group in arm.groups.items():
        sure = group.interval_95 or _NOTHING
        yield _OURS, name, group_name, "score", group.value, *sure, group.images, group.errors
    sure = arm.interval_95 or _NOTHING
    yield _OURS, name, "", summary.headline, arm.score, *sure, arm.images, errors
    further = dict(arm.others)
    if arm.verifier is not None:
        further["found correct by the verifier"] = arm.verifier.mean_of_groups
    further["corrected"] = arm.corrected
    further["images_per_failing_prompt"] = arm.images_per_failing_prompt
    further["forwards_per_failing_prompt"] = arm.forwards_per_failing_prompt
    further |= {f"out of memory: {fallback}": n for fallback, n in arm.fallbacks.items()}
    for measure, value in further.items():
        yield _OURS, name, "", measure, value, *_NOTHING, arm.images, errors

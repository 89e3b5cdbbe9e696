"""From results to tables: accuracy a tag and over all, cost, and how sure the differences are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scipy.stats import binomtest

from npc_local.shapes.prompts import TAGS

Row = Mapping[str, Any]


def summary(rows: Iterable[Row], arms: Sequence[str]) -> dict[str, Any]:
    """Everything the tables show, as plain data."""
    rows = list(rows)
    base_wrong = [row for row in rows if not row["arms"][arms[0]]["correct"]]
    return {
        "prompts": len(rows),
        "different_prompts": len({row["prompt"] for row in rows}),
        "failing": len(base_wrong),
        "accuracy": {arm: _accuracy(rows, arm) for arm in arms},
        "images_per_failing_prompt": {
            arm: _mean(len(row["arms"][arm]["tries"]) for row in base_wrong) for arm in arms
        },
        "forwards_per_failing_prompt": {
            arm: _mean(row["arms"][arm]["forwards"] for row in base_wrong) for arm in arms
        },
        "pairs": {
            f"{a} vs {b}": _paired(rows, a, b)
            for index, a in enumerate(arms)
            for b in arms[index + 1 :]
        },
        "by_number": {arm: _by_number(base_wrong, arm) for arm in arms},
        "tries": {arm: _by_kind(base_wrong, arm) for arm in arms},
    }


def _accuracy(rows: Sequence[Row], arm: str) -> dict[str, Any]:
    right = {tag: [r["arms"][arm]["correct"] for r in rows if r["tag"] == tag] for tag in TAGS}
    shares = {tag: _mean(found) for tag, found in right.items() if found}
    every = [value for found in right.values() for value in found]
    interval = binomtest(sum(every), len(every)).proportion_ci(method="wilson")
    return {
        "tags": shares,
        "overall": _mean(every),
        "mean_of_tags": _mean(shares.values()),
        "interval_95": [interval.low, interval.high],
    }


def _paired(rows: Sequence[Row], a: str, b: str) -> dict[str, Any]:
    """Where two arms disagree, with the exact McNemar test."""
    only_a = sum(r["arms"][a]["correct"] and not r["arms"][b]["correct"] for r in rows)
    only_b = sum(r["arms"][b]["correct"] and not r["arms"][a]["correct"] for r in rows)
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return {"only_first": only_a, "only_second": only_b, "p": float(p)}


def _by_number(rows: Sequence[Row], arm: str) -> list[dict[str, float]]:
    """How often an arm's first, second, ... image was right; for npc that is rank by salience."""
    tries = [row["arms"][arm]["tries"] for row in rows]
    longest = max(map(len, tries), default=0)
    columns = [[t[i]["correct"] for t in tries if len(t) > i] for i in range(longest)]
    return [{"images": len(column), "right": _mean(column)} for column in columns]


def _by_kind(rows: Sequence[Row], arm: str) -> dict[str, Any]:
    """How often one image with a negative prompt of a kind was right."""
    kinds: dict[str, list[bool]] = {}
    for row in rows:
        for attempt in row["arms"][arm]["tries"]:
            kinds.setdefault(attempt["kind"] or "no negative", []).append(attempt["correct"])
    return {kind: {"images": len(n), "right": _mean(n)} for kind, n in sorted(kinds.items())}


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def markdown(found: Mapping[str, Any], arms: Sequence[str]) -> str:
    """The summary as markdown tables, which read well in a terminal too."""
    accuracy = found["accuracy"]
    lines = [
        f"{found['prompts']} prompts with their seeds ({found['different_prompts']} different "
        f"prompts); {found['failing']} base images are wrong.",
        "",
        *table(
            ["accuracy", *arms],
            [
                *[[tag, *(_percent(accuracy[a]["tags"].get(tag)) for a in arms)] for tag in TAGS],
                ["**overall**", *(f"**{_percent(accuracy[a]['overall'])}**" for a in arms)],
                ["95 % interval", *(_interval(accuracy[a]["interval_95"]) for a in arms)],
                ["mean of tags", *(_percent(accuracy[a]["mean_of_tags"]) for a in arms)],
                _row(found, "images a failing prompt", "images_per_failing_prompt", arms, 2),
                _row(
                    found,
                    "denoiser forwards a failing prompt",
                    "forwards_per_failing_prompt",
                    arms,
                    0,
                ),
            ],
        ),
        "",
        *table(
            ["right in one arm only", "first", "second", "p (exact McNemar)"],
            [
                [name, str(pair["only_first"]), str(pair["only_second"]), f"{pair['p']:.3g}"]
                for name, pair in found["pairs"].items()
            ],
        ),
        "",
        *table(
            ["right image, by its number", *arms[1:]],
            [
                [str(number + 1), *(_cell(found["by_number"][arm], number) for arm in arms[1:])]
                for number in range(max(map(len, found["by_number"].values()), default=0))
            ],
        ),
        "",
        *table(
            ["images made after the base", "negative", "images", "right"],
            [
                [arm, kind, str(cell["images"]), _percent(cell["right"])]
                for arm in arms
                for kind, cell in found["tries"][arm].items()
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def _row(
    found: Mapping[str, Any], title: str, key: str, arms: Sequence[str], digits: int
) -> list[str]:
    return [title, *(f"{found[key][arm]:.{digits}f}" for arm in arms)]


def _cell(column: Sequence[Mapping[str, float]], index: int) -> str:
    if index >= len(column):
        return ""
    return f"{_percent(column[index]['right'])} of {column[index]['images']}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _interval(bounds: Sequence[float]) -> str:
    return f"{100 * bounds[0]:.1f}-{100 * bounds[1]:.1f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a markdown table whose columns line up."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = (
        "|"
        + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths))
        + "|"
    )
    return [line(head), rule, *(line(row) for row in rows)]

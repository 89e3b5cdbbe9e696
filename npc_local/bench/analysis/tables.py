"""A summary as text or markdown: every number that a `Summary` holds, and none of its own.

What the paper published stands in a table of its own. CSV is left to `csv_rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from npc_local.bench.analysis.summary import RightShare, Summary
from npc_local.bench.suites.published import Figure

_PUBLISHED = (
    "Published by the paper's authors, on other models and with another judge; not measured here"
)


@dataclass(frozen=True, slots=True)
class Section:
    """One table with what stands above and below it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def markdown(title: str, sections: Sequence[Section]) -> str:
    """Return sections as markdown, which reads well in a terminal too."""
    lines = [f"# {title}"]
    for section in sections:
        lines += ["", f"## {section.title}", "", *table(section.head, section.rows)]
        lines += ["", section.note] if section.note else []
    return "\n".join(lines) + "\n"


def text(title: str, sections: Sequence[Section]) -> str:
    """Return sections as plain text for a terminal."""
    lines = [title]
    for section in sections:
        lines += ["", section.title]
        widths = _widths(section.head, section.rows)
        for cells in (section.head, *section.rows):
            lines.append(f"  {'  '.join(_padded(cells, widths))}".rstrip())
        lines += [f"  {section.note}"] if section.note else []
    return "\n".join(lines) + "\n"


def title(summary: Summary) -> str:
    """Return in a line what was run."""
    seeds = "seeds " if len(summary.seeds) > 1 else "seed "
    seeds += ", ".join(map(str, summary.seeds))
    different = ""
    if summary.different_prompts < summary.prompts:
        different = f" ({summary.different_prompts} different)"
    return (
        f"{summary.title}: {summary.prompts} of {summary.of_prompts} prompts{different}, "
        f"benchmark {seeds}; judged by {summary.judge}"
    )


def sections(summary: Summary) -> list[Section]:
    """Return the tables of a summary."""
    parts: list[Callable[[Summary], Section | None]] = [
        _errors,
        _fallbacks,
        _scores,
        _effort,
        _pairs,
        _agreement,
        _by_number,
        _by_kind,
        _costs,
        _figures,
    ]
    return [section for part in parts if (section := part(summary)) is not None]


def _errors(summary: Summary) -> Section | None:
    if not summary.errors:
        return None
    rows = [[_one_line(count.error), count.in_, str(count.results)] for count in summary.errors]
    return Section(
        "Errors: what they would enter is withheld",
        ["error", "in", "results without a judgement"],
        rows,
        "--retry-errors does these stages again, and no others.",
    )


def _fallbacks(summary: Summary) -> Section | None:
    arms = summary.arms
    names = dict.fromkeys(name for arm in arms.values() for name in arm.fallbacks)
    rows = [[name, *(str(arm.fallbacks.get(name, 0)) for arm in arms.values())] for name in names]
    note = "They can change an image: these results are not quite those of a larger GPU."
    title = "Results with images made in less memory, by what was switched on after out of memory"
    return Section(title, ["", *arms], rows, note) if rows else None


def _scores(summary: Summary) -> Section:
    arms, show = summary.arms, _shown(summary)
    rows = []
    for name in summary.groups:
        groups = [arm.groups[name] for arm in arms.values()]
        if any(group.images for group in groups):
            cells = (_score(group.value, group.images, group.errors, show) for group in groups)
            rows.append([name, *cells])
    totals = (
        _score(arm.score, arm.images, arm.errors.loop + arm.errors.judge, show)
        for arm in arms.values()
    )
    rows.append([summary.headline, *totals])
    rows.append(["  95 % interval", *(interval(arm.interval_95, show) for arm in arms.values())])
    others = dict.fromkeys(name for arm in arms.values() for name in arm.others)
    rows += [[name, *(show(arm.others.get(name)) for arm in arms.values())] for name in others]
    verifiers = [
        None if arm.verifier is None else arm.verifier.mean_of_groups for arm in arms.values()
    ]
    if any(share is not None for share in verifiers):
        rows.append(["the verifier, which steers: found correct", *map(percent, verifiers)])
    what = "Share of images that the judge finds correct" if summary.best == 1 else "Judge's grade"
    return Section(
        f"{what}, by {'tag' if summary.best == 1 else 'type'}",
        ["", *arms],
        rows,
        "Intervals: bootstrap over prompts, a prompt's seeds kept together.",
    )


def _effort(summary: Summary) -> Section | None:
    arms = {name: arm for name, arm in summary.arms.items() if arm.verifier is not None}
    if not arms:
        return None
    rows = [
        ["corrected, as the verifier sees it", *(percent(a.corrected) for a in arms.values())],
        [
            "images after the base image",
            *(number(a.images_per_failing_prompt) for a in arms.values()),
        ],
        [
            "denoiser forwards after the base image",
            *(number(a.forwards_per_failing_prompt, 0) for a in arms.values()),
        ],
    ]
    return Section(
        f"For each of the {summary.failing} base images that the verifier finds wrong, on average",
        ["", *arms],
        rows,
    )


def _pairs(summary: Summary) -> Section | None:
    if not summary.pairs:
        return None
    show, graded = _shown(summary, signed=True), summary.best != 1
    rows = []
    for pair in summary.pairs:
        cells = [
            f"{pair.first} -> {pair.second}",
            show(pair.difference),
            interval(pair.interval_95, show),
        ]
        if not graded:
            cells += [_count(pair.only_first), _count(pair.only_second), _p(pair.p)]
        rows.append(cells)
    head = ["from -> to", "difference", "95 % interval"]
    head += [] if graded else ["only first right", "only second right", "p (exact McNemar)"]
    note = "" if graded else "McNemar's test takes a prompt's seeds for independent images."
    return Section("Differences on the same prompts and seeds", head, rows, note)


def _agreement(summary: Summary) -> Section | None:
    both = summary.agreement
    if not both.images:
        return None
    if summary.best != 1:
        return Section(
            "Judge and verifier",
            ["images judged by both", "rank correlation of grade and score (Spearman)"],
            [[str(both.images), number(both.rank_correlation)]],
        )
    head = ["images judged by both", "both correct", "both wrong", "only the verifier says correct"]
    counts = (both.images, both.both_correct, both.both_wrong, both.only_verifier, both.only_judge)
    return Section(
        "Judge and verifier",
        [*head, "only the judge says correct", "Cohen's kappa"],
        [[*map(str, counts), number(both.kappa)]],
    )


def _by_number(summary: Summary) -> Section | None:
    arms = {name: arm.by_number for name, arm in summary.arms.items() if arm.by_number}
    if not arms:
        return None
    longest = max(map(len, arms.values()))
    rows = [
        [str(place + 1), *(_cell(column, place) for column in arms.values())]
        for place in range(longest)
    ]
    return Section(
        "Right images after the base image, by their number (verifier)", ["", *arms], rows
    )


def _by_kind(summary: Summary) -> Section | None:
    rows = [
        [name, kind, str(share.images), percent(share.right)]
        for name, arm in summary.arms.items()
        for kind, share in arm.by_kind.items()
    ]
    head = ["", "negative prompt", "images", "right"]
    title = "Right images after the base image, by their negative prompt (verifier)"
    return Section(title, head, rows) if rows else None


def _costs(summary: Summary) -> Section:
    rows = [
        [
            kind,
            *(f"{n:,}" for n in (spent.steps, spent.failures, spent.forwards, spent.calls)),
            *(f"{tokens:,}" for tokens in (spent.tokens_in, spent.tokens_out)),
            f"{spent.seconds:,.1f}",
            f"{spent.peak_bytes / 2**30:.2f}",
        ]
        for kind, spent in summary.costs.items()
    ]
    head = ["stage", "done", "failed", "forwards", "agent calls", "tokens in", "tokens out"]
    note = "All that is in the journal, what another command had done there included."
    return Section("What it cost", [*head, "seconds", "peak memory, GiB"], rows, note)


def _figures(summary: Summary) -> Section | None:
    return published(summary.published)


def published(figures: Sequence[Figure]) -> Section | None:
    """Return what the paper says, in a table of its own; None if it says nothing."""
    rows = [[f.what, f.arm or "", f"{f.value:g} {f.unit}", f.source] for f in figures]
    head = ["what", "stands beside our arm", "figure", "source"]
    return Section(_PUBLISHED, head, rows) if rows else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a markdown table whose columns line up."""
    widths = _widths(head, rows)
    rule = "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths))
    lines = [f"| {' | '.join(_padded(cells, widths))} |" for cells in (head, *rows)]
    return [lines[0], f"|{rule}|", *lines[1:]]


def _widths(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]


def _padded(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    pairs = enumerate(zip(cells, widths, strict=True))
    return [cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in pairs]


def _shown(summary: Summary, *, signed: bool = False) -> Callable[[float | None], str]:
    """Return how a score of this benchmark is written."""
    sign = "+" if signed else ""
    if summary.best == 1:
        return lambda value: "" if value is None else f"{100 * value:{sign}.1f} %"
    return lambda value: "" if value is None else f"{value:{sign}.2f}"


def _score(
    value: float | None, images: int, errors: int, show: Callable[[float | None], str]
) -> str:
    if value is not None or not images:
        return show(value)
    return f"withheld ({errors} failed)"


def interval(bounds: Sequence[float] | None, show: Callable[[float | None], str]) -> str:
    """Write an interval as `show` writes numbers; empty: there is none."""
    if bounds is None:
        return ""
    low, high = (show(bound).removesuffix(" %") for bound in bounds)
    return f"{low} to {high}"


def percent(share: float | None) -> str:
    """Write a share; empty: there is none."""
    return "" if share is None else f"{100 * share:.1f} %"


def number(value: float | None, digits: int = 2) -> str:
    """Write a number; empty: there is none."""
    return "" if value is None else f"{value:.{digits}f}"


def signed(value: float | None) -> str:
    """Write a difference; empty: there is none."""
    return "" if value is None else f"{value:+.2f}"


def _count(value: int | None) -> str:
    return "" if value is None else str(value)


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _cell(column: Sequence[RightShare], index: int) -> str:
    if index >= len(column):
        return ""
    return f"{percent(column[index].right)} of {column[index].images}"


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "/").split())

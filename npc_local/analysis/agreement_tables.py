"""The measures of `agreement` as tables, the paper's figures in one of their own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from npc_local.analysis.agreement import AgreementReport
from npc_local.bench.analysis.tables import Section, interval, number, percent, published, signed
from npc_local.bench.suites.published import RANKING

_PAIRS = (
    "A pair is two candidates of one wrong image that were both tried at its seed. Each arm stops "
    "at its first correct image. In random order that favours neither of a pair; of all tried, "
    "those of npc count as well, whose last one, the lowest ranked, is the only one that can be "
    "correct: this counts against the ranking."
)

_MISSING = {
    "npc": "Not every wrong image was tried in the order of salience, so nothing is said of it: "
    "run the benchmark with --arms npc, and --retry-errors if stages failed.",
    "random-rank": "Not every wrong image was tried in random order, so nothing is said of it, and "
    "the table of kinds is left out: run the benchmark with --arms npc,random-rank, and "
    "--retry-errors if stages failed.",
}


def sections(report: AgreementReport) -> list[Section]:
    """Return the tables of a report."""
    parts = [
        _ranking(report),
        _effort(report),
        _kinds(report),
        _compared(report),
        published(RANKING),
    ]
    return [part for part in parts if part is not None]


def _ranking(report: AgreementReport) -> Section:
    rows = [
        [
            f"candidates {name}",
            *map(str, (counts.pairs, counts.better, counts.worse, counts.ties)),
            percent(counts.agreement),
            interval(counts.interval_95, percent),
        ]
        for name, counts in report.ranking.items()
        if counts is not None
    ]
    head = ["the better-ranked of a pair has the", "pairs", "better", "worse", "same score"]
    return Section(
        f"Ranking agreement, over {report.failing} wrong base images",
        [*head, "better, ties apart", "95 % interval"],
        rows,
        " ".join([_PAIRS, *(_MISSING[arm] for arm in report.missing_arms)]),
    )


def _effort(report: AgreementReport) -> Section | None:
    efforts = {
        **{f"npc's candidates, {name}": effort for name, effort in report.effort.items()},
        **{f"proposals: {way}, ranked": effort for way, effort in report.proposals.items()},
    }
    rows = [
        [
            name,
            str(effort.searches),
            str(effort.incomplete),
            number(effort.images_per_failing_prompt),
            interval(effort.images_interval_95, number),
            percent(effort.corrected),
            interval(effort.corrected_interval_95, percent),
        ]
        for name, effort in efforts.items()
        if effort is not None
    ]
    head = ["", "searches", "not run to the end", "images a failing prompt", "95 % interval"]
    head += ["corrected", "95 % interval"]
    return Section("Images until one is correct, or none is left", head, rows) if rows else None


def _kinds(report: AgreementReport) -> Section | None:
    if report.kinds is None:
        return None
    rows = [
        [kind, str(share.images), percent(share.right), interval(share.interval_95, percent)]
        for kind, share in report.kinds.items()
    ]
    head = ["negative prompt", "images", "right", "95 % interval"]
    return Section("Targeted and untargeted, tried in random order", head, rows)


def _compared(report: AgreementReport) -> Section | None:
    rows = [
        [
            f"{compared.first} -> {compared.second}",
            str(compared.searches),
            *map(percent, compared.corrected),
            str(compared.only_first),
            str(compared.only_second),
            f"{compared.p:.3g}",
            signed(compared.images_difference),
            interval(compared.images_difference_95, signed),
        ]
        for compared in (report.caption, report.kind_arms)
        if compared is not None
    ]
    head = ["proposals, from -> to", "searches", "first corrects", "second corrects"]
    head += ["only first", "only second", "p (exact McNemar)", "images more", "95 % interval"]
    title = "Ways of proposing on the same wrong images (verifier)"
    return Section(title, head, rows) if rows else None


def to_csv(report: AgreementReport) -> str:
    """Return the measures, one a line, named by their place in the report."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("source", "measure", "value"))
    writer.writerows(("npc-local", name, value) for name, value in _flat(asdict(report)))
    writer.writerows((f.source, f"{f.what} ({f.unit})", f.value) for f in RANKING)
    return stream.getvalue()


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            yield from ((f"{name}.{place}", entry) for place, entry in enumerate(value))
        else:
            yield name, "" if value is None else value

"""The measures of `agreement` as tables, the paper's figures in one of their own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

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
    "run the benchmark with --arms npc, and --retry-errors if steps failed.",
    "random-rank": "Not every wrong image was tried in random order, so nothing is said of it, and "
    "the table of kinds is left out: run the benchmark with --arms npc,random-rank, and "
    "--retry-errors if steps failed.",
}


def sections(found: Mapping[str, Any]) -> list[Section]:
    """Return the tables of `agreement.report`."""
    parts = [_ranking(found), _effort(found), _kinds(found), _compared(found), published(RANKING)]
    return [part for part in parts if part is not None]


def _ranking(found: Mapping[str, Any]) -> Section:
    rows = [
        [
            f"candidates {name}",
            *(str(pairs[key]) for key in ("pairs", "better", "worse", "ties")),
            percent(pairs["agreement"]),
            interval(pairs["interval_95"], percent),
        ]
        for name, pairs in found["ranking"].items()
        if pairs is not None
    ]
    head = ["the better-ranked of a pair has the", "pairs", "better", "worse", "same score"]
    return Section(
        f"Ranking agreement, over {found['failing']} wrong base images",
        [*head, "better, ties apart", "95 % interval"],
        rows,
        " ".join([_PAIRS, *(_MISSING[arm] for arm in found["missing_arms"])]),
    )


def _effort(found: Mapping[str, Any]) -> Section | None:
    named = {
        **{f"npc's candidates, {name}": one for name, one in found["effort"].items()},
        **{f"proposals: {mode}, ranked": one for mode, one in found["proposals"].items()},
    }
    rows = [
        [
            name,
            str(one["searches"]),
            str(one["incomplete"]),
            number(one["images_per_failing_prompt"]),
            interval(one["images_interval_95"], number),
            percent(one["corrected"]),
            interval(one["corrected_interval_95"], percent),
        ]
        for name, one in named.items()
        if one is not None
    ]
    head = ["", "searches", "not run to the end", "images a failing prompt", "95 % interval"]
    head += ["corrected", "95 % interval"]
    return Section("Images until one is correct, or none is left", head, rows) if rows else None


def _kinds(found: Mapping[str, Any]) -> Section | None:
    if found["kinds"] is None:
        return None
    rows = [
        [kind, str(one["images"]), percent(one["right"]), interval(one["interval_95"], percent)]
        for kind, one in found["kinds"].items()
    ]
    head = ["negative prompt", "images", "right", "95 % interval"]
    return Section("Targeted and untargeted, tried in random order", head, rows)


def _compared(found: Mapping[str, Any]) -> Section | None:
    rows = []
    for key in ("caption", "kind_arms"):
        one = found[key]
        if one is None:
            continue
        rows.append(
            [
                f"{one['first']} -> {one['second']}",
                str(one["searches"]),
                *(percent(share) for share in one["corrected"]),
                str(one["only_first"]),
                str(one["only_second"]),
                f"{one['p']:.3g}",
                signed(one["images_difference"]),
                interval(one["images_difference_95"], signed),
            ]
        )
    head = ["proposals, from -> to", "searches", "first corrects", "second corrects"]
    head += ["only first", "only second", "p (exact McNemar)", "images more", "95 % interval"]
    title = "Ways of proposing on the same wrong images (verifier)"
    return Section(title, head, rows) if rows else None


def to_csv(found: Mapping[str, Any]) -> str:
    """Return the measures, one a line, named by their place in the report."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("source", "measure", "value"))
    writer.writerows(("npc-local", name, value) for name, value in _flat(found))
    writer.writerows((one.source, f"{one.what} ({one.unit})", one.value) for one in RANKING)
    return stream.getvalue()


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            yield from ((f"{name}.{place}", one) for place, one in enumerate(value))
        else:
            yield name, "" if value is None else value

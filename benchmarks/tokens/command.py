"""`python -m benchmarks tokens`: how well the rules for salient tokens find what a person marked.

Leaves out labels (`labels`), measures (`score`) and the rules (`salience.tokens`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from benchmarks.options import as_json as as_json_option
from benchmarks.options import count

if TYPE_CHECKING:
    from benchmarks.tokens.labels import Set
    from benchmarks.tokens.score import Coverage, Extractor, Miss, Score
    from npc_local.salience.tokens import Rule

RULES: tuple[Rule, ...] = ("released", "quantity", "parser", "auto")

_EXAMPLES = """\b
Examples:
  python -m benchmarks tokens
  python -m benchmarks tokens --set dev --show 10
  python -m benchmarks tokens --set test --prompts mine.txt --json
"""


@click.command(epilog=_EXAMPLES)
@click.option(
    "--set",
    "name",
    type=click.Choice(["dev", "test", "second", "all"]),
    default="all",
    show_default=True,
    help="Labelled prompts: dev to tune on; test, and second by another hand, to report.",
)
@click.option(
    "--prompts",
    "files",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Also see what the parser rule leaves uncovered in these prompts: .jsonl with "
    '"prompt" or "instruction", or .txt with a prompt a line. Repeatable.',
)
@count("--show", 0, "Prompts of each set to show in which the parser rule errs most.", least=0)
@click.option(
    "--spacy-model",
    metavar="NAME_OR_DIR",
    help="spaCy model of the rules parser and auto.  [default: what the rule finds]",
)
@as_json_option
def tokens(
    name: Set | Literal["all"],
    files: tuple[Path, ...],
    show: int,
    spacy_model: str | None,
    as_json: bool,
) -> None:
    """Compare the rules for salient tokens with hand-labelled prompts.

    Exact: the very span is labelled, whatever its kind. Words: a word is in some span or in none.
    Kind: share of the exact spans that have the right kind too. Outside: prompts that got tokens
    which they do not say; those count nowhere else.
    """
    from benchmarks.tokens.labels import Set, load, read_prompts
    from benchmarks.tokens.score import coverage, misses, score
    from npc_local.core.offline.switches import go_offline
    from npc_local.core.terminal import libraries_quiet

    sets: tuple[Set, ...] = get_args(Set) if name == "all" else (name,)
    go_offline()
    prompts = [prompt for file in files for prompt in read_prompts(file)]
    with libraries_quiet() as stdout:
        parser = _extractor("parser", spacy_model)
        scores = {
            name: {rule: score(load(name), _extractor(rule, spacy_model)) for rule in RULES}
            for name in sets
        }
        errors = {name: misses(load(name), parser, show) for name in sets}
        covered = coverage(prompts, parser) if files else None
    if as_json:
        print(json.dumps(_plain(scores, errors, covered), ensure_ascii=False), file=stdout)
    else:
        print(_markdown(scores, errors, covered), end="", file=stdout)


def _extractor(rule: Rule, spacy_model: str | None) -> Extractor:
    from npc_local.salience.tokens import salient_tokens

    model = spacy_model if rule in ("parser", "auto") else None
    return lambda prompt: salient_tokens(prompt, rule, model)


def _plain(
    scores: Mapping[Set, Mapping[Rule, Mapping[str, Score]]],
    errors: Mapping[Set, Sequence[Miss]],
    covered: Coverage | None,
) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "sets": {
            name: {
                rule: {family: score.as_dict() for family, score in families.items()}
                for rule, families in rules.items()
            }
            for name, rules in scores.items()
        },
        "misses": {name: list(map(asdict, misses)) for name, misses in errors.items()},
        "prompts": None if covered is None else asdict(covered),
    }


def _markdown(
    scores: Mapping[Set, Mapping[Rule, Mapping[str, Score]]],
    errors: Mapping[Set, Sequence[Miss]],
    covered: Coverage | None,
) -> str:
    from npc_local.bench.analysis.tables import table

    head = ["rule", "prompts", "exact P", "R", "F1", "words P", "R", "F1", "kind", "outside"]
    lines = []
    for name, rules in scores.items():
        number = next(iter(rules.values()))["all"].prompts
        lines += [f"Set {name!r}, {number} hand-labelled prompts, in percent.", ""]
        rows = [
            [rule, family, *_cells(score)]
            for rule, families in rules.items()
            for family, score in families.items()
        ]
        lines += [*table(head, rows), ""]
        for miss in errors[name]:
            lines += [
                f"[{miss.group}] {miss.prompt}",
                f"    missed:   {', '.join(miss.missed) or '-'}",
                f"    too much: {', '.join(miss.too_much) or '-'}",
                "",
            ]
    if covered is not None:
        lines += [
            f"{covered.prompts} prompts of your files, rule parser: {covered.without_token} have "
            f"no token, {covered.only_function_words} only function words.",
        ]
        if covered.strangest:
            lines += ["With the largest share of content words left uncovered:", ""]
        for left in covered.strangest:
            words = ", ".join(left.words)
            lines += [f"{100 * left.share:3.0f} %  {left.prompt}", f"       left: {words}"]
        lines += [""]
    return "\n".join(lines[:-1]) + "\n"


def _cells(score: Score) -> list[str]:
    shares = [
        share
        for counts in (score.exact, score.words)
        for share in (counts.precision, counts.recall, counts.f1)
    ]
    cells = [f"{100 * share:.1f}" for share in (*shares, score.kind)]
    return [*cells, f"{score.outside_prompts} of {score.prompts}"]

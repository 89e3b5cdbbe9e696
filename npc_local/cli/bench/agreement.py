"""`npc-local bench agreement`: what a run's journal says about the method. Imports click only."""

from __future__ import annotations

from pathlib import Path

import click

from npc_local.cli import options

_EXAMPLES = """\b
Examples:
  npc-local bench shapes --arms all --out runs/shapes
  npc-local bench agreement --out runs/shapes
  npc-local bench agreement --out runs/shapes --json
  npc-local bench agreement --out runs/shapes --formula released --tokens released
"""


@click.command(epilog=_EXAMPLES)
@options.path("--out", "The directory of a benchmark's run.", metavar="DIR", required=True)
@options.form
@options.encoder
@options.formula
@options.tokens
@options.profile
@options.config
@options.overrides
def agreement(
    out: Path,
    form: str,
    encoder: str | None,
    formula: str | None,
    tokens: str | None,
    profile: str | None,
    config: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """How good the ranking is, which negatives help, and what the caption is worth.

    Computed from the stages that a run of a benchmark has kept, with the verifier's scores. For
    unbiased pairs of candidates the run needs the arms npc and random-rank, for the caption npc and
    prompt-only, for the kinds targeted-only and untargeted-only; what it lacks is left out. With
    --encoder, --formula or --tokens, the same pairs are also ranked in that way; else no model is
    opened.
    """
    import json
    from dataclasses import asdict

    from npc_local.analysis import agreement_tables
    from npc_local.analysis.agreement import report
    from npc_local.analysis.searches import open_run
    from npc_local.bench.analysis import tables
    from npc_local.core.terminal import libraries_quiet

    other = {}
    if encoder or formula or tokens:
        from npc_local.core.offline.switches import go_offline
        from npc_local.salience.find_encoder import chosen_encoder
        from npc_local.salience.scorer import SalienceScorer

        go_offline()
        settings = chosen_encoder(encoder, formula, tokens, profile, config, overrides)
        scorer = SalienceScorer.open(settings)
        name = f"{settings.path.name}/{settings.text_encoder} {settings.formula} {settings.tokens}"
        other[name] = lambda pairs: [
            [score.score for score in ranking.scores] for ranking in scorer.rank(pairs)
        ]
    with libraries_quiet(), open_run(out) as journal:
        measures = report(journal, other)
    title, sections = f"Ranking, negatives and caption: {out}", agreement_tables.sections(measures)
    if form == "json":
        shown = json.dumps(asdict(measures)) + "\n"
    elif form == "csv":
        shown = agreement_tables.to_csv(measures)
    elif form == "markdown":
        shown = tables.markdown(title, sections)
    else:
        shown = tables.text(title, sections)
    click.echo(shown, nl=False)

"""`npc-local bench agreement`: what a run's journal says about the method. Imports click only."""

from __future__ import annotations

from pathlib import Path

import click

from npc_local.bench.suite_command import FORMATS

_EXAMPLES = """\b
Examples:
  npc-local bench shapes --arms all --out runs/shapes
  npc-local bench agreement --out runs/shapes
  npc-local bench agreement --out runs/shapes --format json
"""


@click.command(epilog=_EXAMPLES)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    required=True,
    help="The directory of a benchmark's run.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="Of what is printed.",
)
def agreement(out: Path, form: str) -> None:
    """How good the ranking is, which negatives help, and what the caption is worth.

    Computed from the steps that a run of a benchmark has kept, with the verifier's scores; no model
    is opened. For unbiased pairs of candidates the run needs the arm random-rank, for the caption
    prompt-only, for the kinds targeted-only and untargeted-only.
    """
    import json

    from npc_local.bench import agreement_tables, tables
    from npc_local.bench.agreement import open_run, report

    with open_run(out) as journal:
        found = report(journal)
    title, sections = f"Ranking, negatives and caption: {out}", agreement_tables.sections(found)
    if form == "json":
        shown = json.dumps(found) + "\n"
    elif form == "csv":
        shown = agreement_tables.to_csv(found)
    elif form == "markdown":
        shown = tables.markdown(title, sections)
    else:
        shown = tables.text(title, sections)
    click.echo(shown, nl=False)

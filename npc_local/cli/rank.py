"""`npc-local rank`: the salience score on its own, with no image and no agent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from npc_local.cli import options
from npc_local.cli.notes import tell_markup

if TYPE_CHECKING:
    from rich.text import Text

    from npc_local.core.config.settings import EncoderSettings
    from npc_local.core.records import SalientToken
    from npc_local.salience.scorer import Ranking

_STYLES = {
    "number": "bold cyan",
    "thing": "bold green",
    "attribute": "bold yellow",
    "relation": "bold magenta",
    "action": "bold blue",
}
_EXAMPLES = """\b
Examples:
  npc-local rank "two red circles" "one red circle" "blue background"
  npc-local rank --encoder flux-dev "a cat on a sofa" "dog" "wooden floor"
  npc-local rank --encoder models/FLUX.1-dev --tokens parser --json "a melting clock" "water"
"""


@click.command(epilog=_EXAMPLES)
@click.argument("prompt", metavar="PROMPT")
@click.argument("negatives", metavar="NEGATIVE...", nargs=-1, required=True)
@options.encoder
@options.formula
@options.tokens
@options.profile
@options.config
@options.overrides
@options.as_json()
def rank(
    prompt: str,
    negatives: tuple[str, ...],
    encoder: str | None,
    formula: str | None,
    tokens: str | None,
    profile: str | None,
    config: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Rank each NEGATIVE prompt for PROMPT by salience, best first; no image is made.

    Also shows what of the prompt is salient: words that say what the picture must show. With the
    paper's formula a score is the mean of its terms, the cosines of the salient words.
    """
    from npc_local.core.offline.switches import go_offline
    from npc_local.core.prompts import check_prompt
    from npc_local.core.terminal import error_console, libraries_quiet
    from npc_local.salience.find_encoder import chosen_encoder
    from npc_local.salience.scorer import SalienceScorer

    go_offline()
    checked = check_prompt(prompt)
    texts = [check_prompt(text, "a negative prompt") for text in negatives]
    tell_markup([checked])
    settings = chosen_encoder(encoder, formula, tokens, profile, config, overrides)
    with libraries_quiet() as stdout:
        with error_console().status("reading the prompt and the negatives"):
            [ranking] = SalienceScorer.open(settings).rank([(checked, texts)])
        order = sorted(range(len(texts)), key=lambda index: -ranking.scores[index].score)
        if ranking.unread:
            click.echo(
                f"note: the encoder does not read the prompt's last {ranking.unread} tokens",
                err=True,
            )
        if not ranking.tokens:
            click.echo("note: the prompt has no salient word, so nothing can be ranked", err=True)
        if as_json:
            print(json.dumps(_data(checked, texts, order, ranking, settings)), file=stdout)
        else:
            from rich.console import Console

            console = Console(file=stdout, highlight=False, soft_wrap=True)
            console.print(_highlighted(checked, ranking.tokens))
            console.print()
            for line in _lines(texts, order, ranking):
                console.print(line, markup=False)


def _data(
    prompt: str,
    texts: Sequence[str],
    order: Sequence[int],
    ranking: Ranking,
    settings: EncoderSettings,
) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "formula": settings.formula,
        "tokens": [
            {"text": token.text, "kind": token.kind, "span": token.span, "noun": token.noun}
            for token in ranking.tokens
        ],
        "ranked": [
            {
                "negative": texts[index],
                "score": ranking.scores[index].score,
                "terms": dict(ranking.scores[index].terms),
            }
            for index in order
        ],
        "unread": ranking.unread,
    }


def _highlighted(prompt: str, tokens: Sequence[SalientToken]) -> Text:
    """Return the prompt with its salient words in [brackets], coloured by their kind."""
    from rich.text import Text

    # The only control characters that a prompt may have; spans need every place kept.
    shown = prompt.replace("\n", " ").replace("\t", " ")
    spans = sorted({(token.span, token.kind) for token in tokens if token.span is not None})
    text, at = Text(), 0
    for (start, end), kind in spans:
        if start < at:
            continue  # a word that is salient twice
        text.append(shown[at:start])
        text.append(f"[{shown[start:end]}]", style=_STYLES[kind])
        at = end
    text.append(shown[at:])
    return text


def _lines(texts: Sequence[str], order: Sequence[int], ranking: Ranking) -> list[str]:
    """Return a line a negative, best first, its largest terms behind the score."""
    from npc_local.core.terminal import plain

    width = max(len(plain(text)) for text in texts)
    lines = []
    for number, index in enumerate(order, start=1):
        score = ranking.scores[index]
        terms = sorted(score.terms.items(), key=lambda term: -abs(term[1]))
        shown = "  ".join(f"{plain(name)} {value:+.2f}" for name, value in terms[:6])
        more = f"  and {len(terms) - 6} more" if len(terms) > 6 else ""
        lines.append(
            f"{number:>3}  {score.score:+.4f}  {plain(texts[index]):<{width}}  {shown}{more}"
        )
    return lines

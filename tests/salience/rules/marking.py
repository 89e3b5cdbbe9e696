"""Salient tokens written into their prompt, as `[kind text>noun]`, so that a case is one line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from npc_local.core.records import SalientToken

_SIGNS = {"number": "#", "thing": "", "attribute": "~", "relation": "@", "action": "!"}


def marked(prompt: str, tokens: Sequence[SalientToken], nouns: bool = False) -> str:
    """Return the prompt with each token in brackets behind the sign of its kind."""
    written, place = [], 0
    for token in tokens:
        assert token.span is not None
        start, end = token.span
        owner = ">" + prompt[slice(*token.noun)] if nouns and token.noun else ""
        written += [prompt[place:start], f"[{_SIGNS[token.kind]}{prompt[start:end]}{owner}]"]
        place = end
    return "".join(written) + prompt[place:]


def plain(text: str) -> str:
    """Return a marked text without its marks and nouns."""
    return "".join(
        piece
        if index == 0
        else piece.partition("]")[0].lstrip("#~@!").partition(">")[0] + piece.partition("]")[2]
        for index, piece in enumerate(text.split("["))
    )


def check(prompt: str, tokens: Sequence[SalientToken]) -> None:
    """Assert what holds for the tokens of any prompt, whatever the rule (not the released one)."""
    spans = [token.span for token in tokens if token.span]
    assert len(spans) == len(tokens)
    assert spans == sorted(spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    for token, (start, end) in zip(tokens, spans, strict=True):
        assert 0 <= start < end <= len(prompt)
        assert token.text == " ".join(prompt[start:end].lower().split())
        assert token.text[0].isalnum() or not prompt[start].isalnum()
        assert token.noun is None or 0 <= token.noun[0] < token.noun[1] <= len(prompt)
    assert bool(tokens) == any(map(str.isalnum, prompt))

"""Tokens from the characters of a prompt, and what stands in for them where no rule finds any."""

from __future__ import annotations

import re

from npc_local.records import SalientToken, Span, TokenKind
from npc_local.salience.rules.words import FUNCTION_WORDS, MEDIA

WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")


def content_words(prompt: str) -> tuple[SalientToken, ...]:
    """Return the content words of a prompt as things; all its words if it has none.

    Empty only if the prompt has no word.
    """
    found = tuple(token(prompt, *match.span(), "thing") for match in WORD.finditer(prompt))
    content = tuple(each for each in found if each.text not in FUNCTION_WORDS)
    telling = tuple(each for each in content if each.text not in MEDIA)
    return telling or content or found


def token(
    prompt: str, start: int, end: int, kind: TokenKind, noun: Span | None = None
) -> SalientToken:
    """Return a token of the characters [start, end), without marks at its ends.

    The range must hold a letter or a digit.
    """
    while not prompt[start].isalnum():
        start += 1
    while not prompt[end - 1].isalnum():
        end -= 1
    return SalientToken(prompt[start:end].lower(), kind, (start, end), noun)

"""Tokens from the characters of a prompt, and what stands in for them where no rule finds any."""

from __future__ import annotations

import re

from npc_local.core.records import SalientToken, Span, TokenKind
from npc_local.salience.rules.words import FUNCTION_WORDS, LOOKS, MEDIA

# "1,000" and "3.5" are one word.
WORD = re.compile(r"(?:\d+[.,](?=\d))*[^\W_]+(?:['\u2019-][^\W_]+)*")
# Spaces of no width, marks of direction and the like. Joiners are none: they stand inside words.
_INVISIBLE = (
    0x180E,
    0x200B,
    0x200E,
    0x200F,
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
)
_SPACES = dict.fromkeys(_INVISIBLE, " ")


def content_words(prompt: str) -> tuple[SalientToken, ...]:
    """Return the content words of a prompt as things; all its words if it has none.

    Empty only if the prompt has no word.
    """
    words = tuple(token(prompt, *match.span(), "thing") for match in WORD.finditer(prompt))
    content = tuple(word for word in words if word.text not in FUNCTION_WORDS)
    telling = tuple(word for word in content if word.text not in MEDIA | LOOKS)
    return telling or content or words


def spaced(prompt: str) -> str:
    """Return the prompt, as long as it was, with a space for each character of no width."""
    return prompt.translate(_SPACES)


def is_function_word(text: str) -> bool:
    """Tell whether a text in lower case has no content of its own, marks at its ends aside."""
    start, end = _inner(text, 0, len(text))
    return text in FUNCTION_WORDS or text[start:end] in FUNCTION_WORDS


def token(
    prompt: str, start: int, end: int, kind: TokenKind, noun: Span | None = None
) -> SalientToken:
    """Return a token of the characters [start, end), without marks at its ends and gaps inside.

    The range must hold a letter or a digit.
    """
    start, end = _inner(prompt, start, end)
    text = " ".join(prompt[start:end].lower().split())
    return SalientToken(text, kind, (start, end), noun)


def _inner(text: str, start: int, end: int) -> Span:
    """Return the part of [start, end) from its first to its last letter or digit."""
    while start < end and not text[start].isalnum():
        start += 1
    while start < end and not text[end - 1].isalnum():
        end -= 1
    return start, end

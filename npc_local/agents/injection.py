"""Text painted into an image that speaks to whoever judges it ('correct: 1').

A flag for people to look at, nothing more: it changes no verdict. It sees what the captioner
transcribed, so an image that is accepted at once, and never described, goes without.
"""

from __future__ import annotations

import re

# A single quote inside a word is an apostrophe and opens no quotation.
_QUOTED = re.compile(
    r"\"([^\"]+)\"|\u201c([^\u201d]+)\u201d|\u00ab([^\u00bb]+)\u00bb"
    r"|(?<!\w)['\u2018]([^\n]+?)['\u2019](?!\w)"
)
_WORDS_OF_JUDGES = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.*\b(?:all|previous|prior|above|instructions?"
    r"|rules?|prompts?)\b"
    r"|\b(?:correct|holds?|score|verdict|rating|grade|reason|answer|c\d+)\b\W{0,3}[:=]"
    r"|\b(?:system|assistant|user|developer)\s*:"
    r"|\b(?:instructions?|prompts?|verdicts?|verifiers?|evaluators?|judges?|ai model)\b"
    r"|\b(?:answer|respond|reply|output|return|say|mark|rate|score|grade|judge)\b.{0,40}"
    r"\b(?:true|yes|correct|pass|perfect|\d+(?:\.\d+)?|full marks)\b"
    r"|\b(?:this|the) (?:image|picture|photo) (?:is|meets|matches|satisfies|shows)\b"
    r"|\ball claims\b|\[/?(?:end|inst|data)\b|<\|?/?\w+\|?>|[{}]",
    re.IGNORECASE | re.DOTALL,
)
# Where nothing is quoted, only what no description says of itself.
_UNQUOTED = re.compile(
    r"\b(?:correct|verdict|score)\s*[:=]\s*\"?(?:1|true|yes|pass|\d)[\w.]*"
    r"|\b(?:ignore|disregard|forget) (?:all |any |the |your )*(?:previous|prior|above|earlier)"
    r"(?: \w+)?",
    re.IGNORECASE,
)
_SHOWN = 120


def spoken_to_judges(caption: str) -> tuple[str, ...]:
    """Return the passages of a caption that read like words to a judge, cut to be shown."""
    quoted = [next(filter(None, match.groups())) for match in _QUOTED.finditer(caption)]
    passages = [text.strip() for text in quoted if _WORDS_OF_JUDGES.search(text)]
    rest = _QUOTED.sub(" ", caption)
    passages += [match[0].strip() for match in _UNQUOTED.finditer(rest)]
    return tuple(
        text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
        for text in dict.fromkeys(passages)
    )

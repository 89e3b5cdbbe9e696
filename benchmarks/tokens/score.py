"""How well an extractor of salient tokens agrees with hand labels, and what it leaves uncovered.

Leaves out the labels (`labels`), the extractors (`salience.tokens`) and the printing (`command`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.tokens.labels import FAMILIES, Labelled
from npc_local.core.records import SalientToken, Span, TokenKind

Extractor = Callable[[str], Iterable[SalientToken]]

_WORD = re.compile(r"\w+(?:[-'’]\w+)*")  # noqa: RUF001
_FUNCTION_WORDS = """
    a an the this that these those some any each every both all other another
    i me my we us our you your he him his she her hers it its they them their who whose which what
    and or but nor so than as like if while when where there here then
    of in on at to for from by with into onto about up down out off after before during via per
    is are was were be been being am has have had having do does did can could will would shall
    should may might must not no very too also just only
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


@dataclass(frozen=True, slots=True)
class Counts:
    """Hits among what was predicted and among what was labelled."""

    hits: int = 0
    predicted: int = 0
    labelled: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.hits + other.hits,
            self.predicted + other.predicted,
            self.labelled + other.labelled,
        )

    @property
    def precision(self) -> float:
        """Share of the predicted that is labelled; 0 if nothing was predicted."""
        return self.hits / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the labelled that was predicted; 0 if nothing is labelled."""
        return self.hits / self.labelled if self.labelled else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.predicted + self.labelled
        return 2 * self.hits / both if both else 0.0


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over prompts, so that shares of them are micro-averaged.

    `exact` counts spans whatever their kind, each once a prompt; `words` counts words of the prompt
    that a span touches, which is fairer to a rule of single words. `kinds_right` counts the exact
    hits of the right kind. `outside` counts the tokens that the prompt does not say (span None),
    which are no part of the rest, and `outside_prompts` the prompts that got any.
    """

    prompts: int = 0
    exact: Counts = Counts()
    words: Counts = Counts()
    kinds_right: int = 0
    outside: int = 0
    outside_prompts: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(
            self.prompts + other.prompts,
            self.exact + other.exact,
            self.words + other.words,
            self.kinds_right + other.kinds_right,
            self.outside + other.outside,
            self.outside_prompts + other.outside_prompts,
        )

    @property
    def kind(self) -> float:
        """Share of the exact hits that have the right kind; 0 if there are none."""
        return self.kinds_right / self.exact.hits if self.exact.hits else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Shares and counts as plain data."""
        return {
            "prompts": self.prompts,
            "exact": _shares(self.exact),
            "words": _shares(self.words),
            "kind": self.kind,
            "outside": {"tokens": self.outside, "prompts": self.outside_prompts},
        }


@dataclass(frozen=True, slots=True)
class Miss:
    """Where an extractor and the labels of one prompt part, as spelt in the prompt."""

    group: str
    prompt: str
    missed: tuple[str, ...]
    too_much: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Uncovered:
    """A prompt with its content words that no token touches; `share` of all its content words."""

    prompt: str
    share: float
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Coverage:
    """What an extractor leaves of prompts without labels; `strangest` by share uncovered."""

    prompts: int
    without_token: int
    only_function_words: int
    strangest: tuple[Uncovered, ...]


def score(items: Iterable[Labelled], extract: Extractor) -> dict[str, Score]:
    """Compare an extractor with labels; keys as in `FAMILIES`."""
    totals = dict.fromkeys(FAMILIES, Score())
    for item in items:
        own = _score_one(item, tuple(extract(item.prompt)))
        for family, groups in FAMILIES.items():
            if item.group in groups:
                totals[family] += own
    return totals


def _score_one(item: Labelled, tokens: Sequence[SalientToken]) -> Score:
    right = {token.span: token.kind for token in item.tokens}
    given: dict[Span, TokenKind] = {}
    for token in tokens:
        if token.span is not None:
            given.setdefault(token.span, token.kind)
    hits = [span for span in given if span in right]
    salient = _touched(item.prompt, _spans(item.tokens))
    touched = _touched(item.prompt, given)
    outside = sum(token.span is None for token in tokens)
    return Score(
        prompts=1,
        exact=Counts(len(hits), len(given), len(right)),
        words=Counts(len(salient & touched), len(touched), len(salient)),
        kinds_right=sum(given[span] == right[span] for span in hits),
        outside=outside,
        outside_prompts=int(outside > 0),
    )


def misses(items: Iterable[Labelled], extract: Extractor, most: int) -> tuple[Miss, ...]:
    """Return up to `most` prompts with wrong exact spans, those with the most errors first."""
    wrong = []
    for item in items:
        right = set(_spans(item.tokens))
        given = set(_spans(extract(item.prompt)))
        missed, too_much = _texts(item.prompt, right - given), _texts(item.prompt, given - right)
        if missed or too_much:
            wrong.append(Miss(item.group, item.prompt, missed, too_much))
    wrong.sort(key=lambda miss: len(miss.missed) + len(miss.too_much), reverse=True)
    return tuple(wrong[:most])


def coverage(prompts: Iterable[str], extract: Extractor, most: int = 10) -> Coverage:
    """Say what an extractor leaves of prompts without labels.

    Content words are all but `FUNCTION_WORDS`. A prompt is the stranger the larger the share of its
    content words that no token touches; of equal shares the longer prompt comes first.
    """
    total = without = only = 0
    strange = []
    for prompt in prompts:
        total += 1
        spans = _spans(extract(prompt))
        covered = _touched(prompt, spans)
        content = [span for span in _words(prompt) if _text(prompt, span) not in FUNCTION_WORDS]
        left = [span for span in content if span not in covered]
        without += not spans
        only += bool(spans) and not covered.intersection(content)
        if left:
            strange.append(Uncovered(prompt, len(left) / len(content), _texts(prompt, left)))
    strange.sort(key=lambda left: (left.share, len(left.prompt)), reverse=True)
    return Coverage(total, without, only, tuple(strange[:most]))


def _shares(counts: Counts) -> dict[str, float]:
    return {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}


def _spans(tokens: Iterable[SalientToken]) -> list[Span]:
    return [token.span for token in tokens if token.span is not None]


def _words(prompt: str) -> list[Span]:
    return [word.span() for word in _WORD.finditer(prompt)]


def _touched(prompt: str, spans: Iterable[Span]) -> set[Span]:
    """Return the words that share a character with a span."""
    spans = tuple(spans)
    return {
        word
        for word in _words(prompt)
        if any(start < word[1] and word[0] < end for start, end in spans)
    }


def _text(prompt: str, span: Span) -> str:
    return prompt[span[0] : span[1]].lower()


def _texts(prompt: str, spans: Iterable[Span]) -> tuple[str, ...]:
    return tuple(prompt[start:end] for start, end in sorted(spans))

"""Brackets and weights of other tools in a prompt: "(red:1.3)", "[cat|dog]", "cat::2".

What else is markup is `prompt_markup`'s matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from npc_local.core.markup_eraser import CLOSING, NUMBER, OPENING, Eraser

_WEIGHT_BEFORE = re.compile(rf"(?<![\w.:])({NUMBER})::")
_WEIGHT_BEHIND = re.compile(rf"::(?:\s?({NUMBER}))?(?![\w.])|::")
# "(home: 0)", "(10:30)" and "(temperature:25)" are words.
_INNER_WEIGHT = re.compile(rf"(?<!\d):({NUMBER})\s*$")
_MAX_WEIGHT, _MAX_WHOLE_WEIGHT = 3.0, 2.0
# A bracket that nobody has closed, or opened.
_HALF_WEIGHT = re.compile(r"(?<=[^\W\d]):[0-3]?\.\d+(?=(\s*(?:\)|,|$))|\s)")
# What leaves no doubt that numbers in brackets are weights.
_WEIGHTS_ARE_USED = re.compile(r":(?:-[01](?:\.\d+)?|\d?\.\d+)\s*\)|<(?:lora|lyco|hypernet):|\(\(")
# A text before a bracket that explains a word there.
_EXPLAINED = re.compile(r"[^\W_][\"'\u201d\u2019]?\s*$")
_WHEN = re.compile(rf"(?::\s*{NUMBER})+\s*$")
_EMPHASIS = re.compile(
    r"(?:(?<=[^\W_][^\W\d_])|(?<=[\w)]\)))(?:\+{1,6}|-{2,6})(?=[\s,.;)]|$)|(?<=\))[0-2]?\.\d+\b"
)
# "Notepad++" and "Disney+" are names: those with a capital inside a sentence, and these.
_WORD_BEFORE = re.compile(r"[^\W_]+$")
_NAMES_WITH_PLUS = frozenset({"notepad", "disney", "google", "paramount", "espn", "tv", "apple"})
_CHOSEN = re.compile(r"^\s*\d+(?:-\d+)?\$\$(?:[^$|]*\$\$)?")  # {2$$a|b}: two of them
_OPTION_WEIGHT = re.compile(rf"^\s*{NUMBER}::|:\s*{NUMBER}\s*$")


def brackets(eraser: Eraser) -> None:
    """Take out brackets that weigh, alternate or choose, the outer ones first."""
    for start, end in sorted(_pairs(eraser)):
        if not eraser.is_free(start):
            continue
        bracket, inside = eraser.prompt[start], eraser.prompt[start + 1 : end]
        if bracket == "(":
            _weighed(eraser, start, end, inside)
            continue
        options = _options(bracket, inside)
        if bracket == "{" and eraser.prompt[start - 1 : start] == "$":
            if "=" in inside:  # a variable that is set
                eraser.erase(start - 1, end + 1)
        elif options is not None and len(options) > 1:
            eraser.erase(start, end + 1)
            named = [name for option in options for name in _named(option)]
            if all(named):
                eraser.spelt_out[start] = f" {' or '.join(dict.fromkeys(named))} "
        elif bracket == "{" or options is not None or _is_doubled(eraser.prompt, start, end):
            weight = _INNER_WEIGHT.search(inside) if options is not None else None
            removed = re.match(r"\s*:", inside) if options is not None else None
            eraser.erase(start, start + 1 + (removed.end() if removed else 0))
            inner = weight.start() if weight else len(inside)
            eraser.erase(start + 1 + len(inside[:inner].rstrip(":")), end + 1)


def _pairs(eraser: Eraser) -> Iterator[tuple[int, int]]:
    r"""Yield the places of brackets that belong together; `\(` is a character like others."""
    opened: list[int] = []
    for at, sign in enumerate(eraser.prompt):
        if sign not in OPENING + CLOSING or not eraser.is_free(at):
            continue
        if at and eraser.prompt[at - 1] == "\\":
            eraser.erase(at - 1, at)
        elif sign in OPENING:
            opened.append(at)
        elif opened and OPENING.index(eraser.prompt[opened[-1]]) == CLOSING.index(sign):
            yield opened.pop(), at


def _is_doubled(prompt: str, start: int, end: int) -> bool:
    """Tell whether brackets have others around or inside them at once: "((red))"."""
    inner = prompt[start + 1] == prompt[start] and prompt[end - 1] == prompt[end]
    outer = prompt[start - 1 : start] == prompt[start] and prompt[end + 1 : end + 2] == prompt[end]
    return inner or outer


def _weighed(eraser: Eraser, start: int, end: int, inside: str) -> None:
    """Take out round brackets with a weight: "(red:1.3)", "((red))", "(red cat)++"."""
    weight = _weight(inside)
    if weight is not None:
        if not _is_certain(eraser.prompt, start, weight[1]):
            return
        if float(weight[1]) <= 0:
            eraser.erase(start, end + 1)
        else:
            eraser.erase(start, start + 1)
            eraser.erase(start + 1 + weight.start(), end + 1)
    elif _is_doubled(eraser.prompt, start, end) or _EMPHASIS.match(eraser.prompt, end + 1):
        eraser.erase(start, start + 1)
        eraser.erase(end, end + 1)


def _weight(inside: str) -> re.Match[str] | None:
    """Return the weight at the end of what stands in a bracket: its number is group 1.

    Other numbers are of the picture: a score, a temperature, a price.
    """
    weight = _INNER_WEIGHT.search(inside)
    if weight is None:
        return None
    most = _MAX_WEIGHT if "." in weight[1] else _MAX_WHOLE_WEIGHT
    return weight if abs(float(weight[1])) <= most else None


def _is_certain(prompt: str, start: int, weight: str) -> bool:
    """Tell whether the weight of round brackets that begin at `start` is certainly one.

    It is if it is below 0 or has a decimal point, if other weights are beside it, or if the bracket
    explains no word before it: "a house (fog:-1)", "a house, (fog:0)", but "a board (home:0)".
    """
    explains = _EXPLAINED.search(prompt[:start]) is not None
    others = _WEIGHTS_ARE_USED.search(prompt) is not None
    return float(weight) < 0 or "." in weight or others or not explains


def _options(bracket: str, inside: str) -> list[str] | None:
    """Return what a bracket chooses from: one where all of it stands there; None: no choice."""
    if bracket == "{" and (chosen := _CHOSEN.match(inside)):
        return [*_split(inside[chosen.end() :], "|"), *([""] if "|" not in inside else [])]
    options = _split(inside, "|")
    if len(options) > 1:
        return options
    when = _WHEN.search(inside) if bracket == "[" else None
    if when and (":" in inside[: when.start()] or not inside[when.start() + 1].isspace()):
        # [from:to:0.5], [to:0.5], [from::0.5], but [home: 3]
        stages = [stage for stage in _split(inside[: when.start()], ":") if stage.strip()]
        return stages if any(any(map(str.isalpha, stage)) for stage in stages) else None
    return None


def _split(text: str, mark: str) -> list[str]:
    """Split a text at a mark that stands outside all brackets."""
    parts, depth, start = [], 0, 0
    for at, sign in enumerate(text):
        depth += (sign in OPENING) - (sign in CLOSING)
        if sign == mark and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def _named(option: str) -> list[str]:
    """Return the words of an alternative, or of each inside it; "" for nothing, or for anything."""
    if "__" in option:
        return [""]
    plain = re.sub(r"[()\[\]{}]", "", option)
    return [" ".join(_OPTION_WEIGHT.sub("", part).split()) for part in plain.split("|")]


def weights(eraser: Eraser) -> None:
    """Take out weights behind phrases ("cat::2 dog::1") or before them ("1.5::cat::")."""
    rest = eraser.rest()
    begun, ruled_out = 0, False
    for match in re.finditer(rf"{_WEIGHT_BEFORE.pattern}|{_WEIGHT_BEHIND.pattern}", rest):
        if not eraser.is_free(match.start()):
            continue
        before, behind = match[1], match[2]
        if ruled_out or (behind is not None and float(behind) < 0):
            eraser.erase(begun, match.start())
        eraser.erase(*match.span(), mark=",")
        begun, ruled_out = match.end(), before is not None and float(before) < 0
    if ruled_out:
        eraser.erase(begun, len(rest))
    rest = eraser.rest()
    is_open = rest.count("(") > rest.count(")")
    for match in _HALF_WEIGHT.finditer(rest):
        ends = match[1] is not None and bool(set(eraser.prompt) & set("()"))
        if eraser.is_free(match.start()) and (is_open or ends):
            eraser.erase(*match.span())


def emphasis(eraser: Eraser) -> None:
    """Take out signs behind words and brackets: "cat++", "(red sofa)1.3"."""
    for match in _EMPHASIS.finditer(eraser.prompt):
        if eraser.is_free(match.start()) and not _is_name(eraser.prompt[: match.start()]):
            eraser.erase(*match.span())


def _is_name(before: str) -> bool:
    """Tell whether a text ends in a name that "+" may belong to."""
    word = _WORD_BEFORE.search(before)
    if word is None:
        return False
    inside = any(map(str.isalnum, before[: word.start()]))
    return word.group().lower() in _NAMES_WITH_PLUS or (inside and word.group()[0].isupper())

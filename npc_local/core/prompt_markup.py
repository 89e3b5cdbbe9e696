"""What in a prompt is markup of other tools, and what its words are without it.

People paste prompts from tools that read more than words: `<lora:name:0.8>`, `BREAK`,
`embedding:name`, `(red:1.3)`, `[cat|dog]`, `{red|blue}`, `__colour__`, `--ar 3:2`, `--no text`. The
generator gets the prompt as it is, since a prompt is data; but nothing that such markup says has to
be in the picture, so whoever reads a prompt for what it asks for reads `words(prompt)`. Text in
quotation marks is lettering, never markup. Nothing is expanded, weighed or looked up here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_NUMBER = r"-?(?:\d+\.?\d*|\.\d+)"
_LETTERING = re.compile(r"\"[^\"\n]{1,60}\"|\u201c[^\u201c\u201d\n]{1,60}\u201d")
_OPENING, _CLOSING = "([{", ")]}"

# Text that is written between tools, not for a picture: a pasted caption of settings, a command.
_PASTED = re.compile(
    r"^/imagine\b(?:\s+prompt:)?"
    r"|^negative prompt:.*?(?=^steps:|\Z)"
    r"|^steps: \d+,.*\Z",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
# These stand for themselves; a phrase ends where they stand.
_PIECES = re.compile(
    r"<\w[\w-]*:[^<>\n]*>"  # <lora:add_detail:0.8>
    r"|(?<!\w)\(?(?i:embedding):[\w./\\-]+(?::" + _NUMBER + r")?\)?"
    r"|withLora\([^()]*\)"
    r"|https?://\S+"
    r"|__[\w*/.-]*[\w*]__"  # a wildcard
)
_WORDS = re.compile(r"(?<![\w'-])(?:BREAK|ADDCOMM|ADDBASE|ADDCOL|ADDROW)(?![\w'-])")
_EMPHASIS = re.compile(r"(?<=[\w)][\w)])(?:\+{1,6}|-{2,6})(?=[\s,.;)]|$)|(?<=\))[0-2]?\.\d+\b")

# Parameters behind a prompt, as `--name value`; some devices make one dash of the two hyphens.
_PARAMETER = re.compile(r"(?<!\S)(?:--|[\u2013\u2014])([A-Za-z][\w-]*)(?=[\s=,]|$)")
_NEXT_PARAMETER = re.compile(r"\s(?:--|[\u2013\u2014])(?=[A-Za-z])|\n|[\u2013\u2014]")
_VALUE = re.compile(r"[ =]+([\d.]+(?:[:x/][\d.]+)?%?)(?=[\s,]|$)")
_WORD_VALUE = re.compile(r"[ =]+(\"[^\"\n]*\"|[\w.:/-]+)")
_REFERENCES = re.compile(r"(?:[ =]+(?:https?://\S+|\d[\d:.]*|random))+")
_RULING_OUT = frozenset({"no", "neg", "negative", "negative_prompt", "negative-prompt"})
_FLAGS_TEXT = """
    tile tiling fast relax turbo raw video hd test testp upbeta uplight upanime creative draft
    loop public stealth
"""
_FLAGS = frozenset(_FLAGS_TEXT.split())
_NUMBERED_TEXT = """
    ar aspect v version niji stylize s q quality seed chaos c weird w iw sw cw ow stop repeat r
    exp steps cfg cfg_scale scale width height
"""
_NUMBERED = frozenset(_NUMBERED_TEXT.split())
_WORDED = frozenset(
    {
        "style",
        "sampler",
        "sampler_name",
        "p",
        "profile",
        "personalize",
        "motion",
        "mode",
        "model",
        "end",
    }
)
_REFERRING = frozenset({"sref", "cref", "oref"})

_WEIGHT_BEFORE = re.compile(rf"(?<![\w.:])({_NUMBER})::")
_WEIGHT_BEHIND = re.compile(rf"::(?:\s?({_NUMBER}))?(?![\w.])|::")
_INNER_WEIGHT = re.compile(rf"(?<!\d):\s*({_NUMBER})\s*$")
# A bracket that nobody has closed, or opened.
_HALF_WEIGHT = re.compile(r"(?<=[^\W\d]):\d*\.\d+(?=\s*(?:\)|,|$))")
_WHEN = re.compile(rf":\s*{_NUMBER}\s*$")
_CHOSEN = re.compile(r"^\s*\d+(?:-\d+)?\$\$(?:[^$|]*\$\$)?")  # {2$$a|b}: two of them
_OPTION_WEIGHT = re.compile(rf"^\s*{_NUMBER}::|:\s*{_NUMBER}\s*$")
_MOST_TOLD = 6


@dataclass(frozen=True, slots=True)
class Reading:
    """A prompt without its markup.

    Attributes:
        blanked: as long as the prompt, with spaces in place of markup (a comma where it parts two
            phrases), so that what is found in it has the same place in the prompt.
        words: the same for readers: no gaps, and of alternatives "cat or dog".
        markup: what was left out, in the prompt's order; brackets without a weight are not named.
    """

    blanked: str
    words: str
    markup: tuple[str, ...]


def read(prompt: str) -> Reading:
    """Read a prompt for its words; one without markup is unchanged.

    What `--no`, "Negative prompt:" or a weight of 0 or less names is ruled out, and left out whole.
    Alternatives leave nothing in `blanked`, since none of them has to be there.
    """
    eraser = _Eraser(prompt)
    for work in (_pasted, _pieces, _parameters, _brackets, _weights, _emphasis):
        work(eraser)
    return eraser.reading()


def words(prompt: str) -> str:
    """Return the words that a prompt asks for; a prompt that is nothing but markup stays itself."""
    return read(prompt).words or prompt


def note(prompts: Iterable[str]) -> str | None:
    """Return one line for people that names the markup of some prompts; None if there is none."""
    pieces = list(dict.fromkeys(piece for prompt in prompts for piece in read(prompt).markup))
    if not pieces:
        return None
    more = f" and {len(pieces) - _MOST_TOLD} more" if len(pieces) > _MOST_TOLD else ""
    return (
        f"markup of other tools is passed to the generator as it is, and is nothing that an image "
        f"is checked for: {', '.join(pieces[:_MOST_TOLD])}{more}"
    )


@dataclass
class _Eraser:
    """A prompt while its markup is being taken out."""

    prompt: str
    erased: dict[int, str] = field(default_factory=dict)  # what stands in place of a character
    spelt_out: dict[int, str] = field(default_factory=dict)  # words for readers, by their place
    pieces: dict[int, int] = field(default_factory=dict)  # where a piece of markup begins and ends

    def __post_init__(self) -> None:
        whole = self.prompt.strip()
        self._lettering = [
            match.span() for match in _LETTERING.finditer(self.prompt) if match.group() != whole
        ]

    def is_free(self, at: int) -> bool:
        """Tell whether a character is neither taken out nor in quotation marks."""
        inside = any(start < at < end - 1 for start, end in self._lettering)
        return at not in self.erased and not inside

    def erase(self, start: int, end: int, mark: str = " ") -> None:
        """Take out the characters [start, end); `mark` stands in place of the first."""
        if start == end:
            return
        self.pieces[start] = max(end, self.pieces.get(start, end))
        for at in range(start, end):
            self.erased.setdefault(at, " ")
        self.erased[start] = mark

    def rest(self) -> str:
        """Return the prompt with what has been taken out so far blank."""
        return "".join(self.erased.get(at, sign) for at, sign in enumerate(self.prompt))

    def reading(self) -> Reading:
        """Return what is left."""
        if not self.pieces:
            return Reading(self.prompt, self.prompt, ())
        spelt = "".join(
            self.spelt_out.get(at, "") + self.erased.get(at, sign)
            for at, sign in enumerate(self.prompt)
        )
        return Reading(self.rest(), _tidied(spelt), tuple(self._told()))

    def _told(self) -> Iterator[str]:
        """Yield the pieces, each once and whole: one inside another is part of that."""
        reached = 0
        for start, end in sorted(self.pieces.items()):
            piece = " ".join(self.prompt[max(start, reached) : end].split())
            if any(map(piece.count, _OPENING)) != any(map(piece.count, _CLOSING)):
                piece = piece.strip(_OPENING + _CLOSING)  # ":1.3", not ":1.3)"
            if any(map(str.isalnum, piece)):
                yield piece
            reached = max(reached, end)


def _tidied(text: str) -> str:
    """Return a text without the gaps and stray commas that markup leaves behind."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"(?: ?,)+", ",", text)
    text = re.sub(r" (?=[,.;!?)\]])|(?<=[(\[]) ", "", text)
    return text.strip(" ,")


def _pasted(eraser: _Eraser) -> None:
    for match in _PASTED.finditer(eraser.prompt):
        eraser.erase(*match.span())


def _pieces(eraser: _Eraser) -> None:
    for match in _PIECES.finditer(eraser.prompt):
        if eraser.is_free(match.start()):
            eraser.erase(*match.span(), mark="," if "//" in match.group() else " ")
    # Where all is written in capitals, so is what a hand breaks.
    if any(map(str.islower, eraser.rest())):
        for match in _WORDS.finditer(eraser.prompt):
            if eraser.is_free(match.start()):
                eraser.erase(*match.span(), mark=",")


def _parameters(eraser: _Eraser) -> None:
    prompt = eraser.prompt
    for match in _PARAMETER.finditer(prompt):
        name, end = match[1].lower(), match.end()
        if not eraser.is_free(match.start()):
            continue
        value = _VALUE.match(prompt, end)
        dashed = match.group()[0] != "-"  # "a house \u2014no garden\u2014 by the sea"
        if name in _RULING_OUT:
            behind = _NEXT_PARAMETER.search(prompt, end)
            end = behind.start() if behind else len(prompt)
        elif value is not None:
            end = value.end()
        elif dashed or name not in _FLAGS | _NUMBERED | _WORDED | _REFERRING:
            continue
        elif name in _WORDED | _REFERRING:
            values = _REFERENCES if name in _REFERRING else _WORD_VALUE
            end = behind.end() if (behind := values.match(prompt, end)) else end
        eraser.erase(match.start(), end)


def _brackets(eraser: _Eraser) -> None:
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


def _pairs(eraser: _Eraser) -> Iterator[tuple[int, int]]:
    r"""Yield the places of brackets that belong together; `\(` is a character like others."""
    opened: list[int] = []
    for at, sign in enumerate(eraser.prompt):
        if sign not in _OPENING + _CLOSING or not eraser.is_free(at):
            continue
        if at and eraser.prompt[at - 1] == "\\":
            eraser.erase(at - 1, at)
        elif sign in _OPENING:
            opened.append(at)
        elif opened and _OPENING.index(eraser.prompt[opened[-1]]) == _CLOSING.index(sign):
            yield opened.pop(), at


def _is_doubled(prompt: str, start: int, end: int) -> bool:
    """Tell whether brackets have others around or inside them at once: "((red))"."""
    inner = prompt[start + 1] == prompt[start] and prompt[end - 1] == prompt[end]
    outer = prompt[start - 1 : start] == prompt[start] and prompt[end + 1 : end + 2] == prompt[end]
    return inner or outer


def _weighed(eraser: _Eraser, start: int, end: int, inside: str) -> None:
    """Take out round brackets with a weight: "(red:1.3)", "((red))", "(red cat)++"."""
    weight = _INNER_WEIGHT.search(inside)
    if weight is not None:
        if float(weight[1]) <= 0:
            eraser.erase(start, end + 1)
        else:
            eraser.erase(start, start + 1)
            eraser.erase(start + 1 + weight.start(), end + 1)
    elif _is_doubled(eraser.prompt, start, end) or _EMPHASIS.match(eraser.prompt, end + 1):
        eraser.erase(start, start + 1)
        eraser.erase(end, end + 1)


def _options(bracket: str, inside: str) -> list[str] | None:
    """Return what a bracket chooses from: one where all of it stands there; None: no choice."""
    if bracket == "{" and (chosen := _CHOSEN.match(inside)):
        return [*_split(inside[chosen.end() :], "|"), *([""] if "|" not in inside else [])]
    options = _split(inside, "|")
    if len(options) > 1:
        return options
    if bracket == "[" and (when := _WHEN.search(inside)):
        # [from:to:0.5], [to:0.5], [from::0.5]
        stages = [stage for stage in _split(inside[: when.start()], ":") if stage.strip()]
        return stages if any(any(map(str.isalpha, stage)) for stage in stages) else None
    return None


def _split(text: str, mark: str) -> list[str]:
    """Split a text at a mark that stands outside all brackets."""
    parts, depth, start = [], 0, 0
    for at, sign in enumerate(text):
        depth += (sign in _OPENING) - (sign in _CLOSING)
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


def _weights(eraser: _Eraser) -> None:
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
    for match in _HALF_WEIGHT.finditer(eraser.rest()):
        if eraser.is_free(match.start()) and set(eraser.prompt) & set("()"):
            eraser.erase(*match.span())


def _emphasis(eraser: _Eraser) -> None:
    for match in _EMPHASIS.finditer(eraser.prompt):
        if eraser.is_free(match.start()):
            eraser.erase(*match.span())

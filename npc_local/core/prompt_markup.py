"""What in a prompt is markup of other tools, and what its words are without it.

People paste prompts from tools that read more than words: `<lora:name:0.8>`, `BREAK`,
`embedding:name`, `(red:1.3)`, `[cat|dog]`, `{red|blue}`, `__colour__`, `--ar 3:2`, `--no text`. The
generator gets the prompt as it is, since a prompt is data; but nothing that such markup says has to
be in the picture, so whoever reads a prompt for what it asks for reads `words(prompt)`. Text in
quotation marks is lettering, never markup. Nothing is expanded, weighed or looked up here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from npc_local.core.markup_brackets import brackets, emphasis, weights
from npc_local.core.markup_eraser import NUMBER, Eraser, Reading

# Text that is written between tools, not for a picture: a pasted caption of settings, a command.
_PASTED = re.compile(
    r"^/imagine\b(?:\s+prompt:)?|^(?:positive[ _])?prompt: "
    # In the middle of a line as well: copying loses line breaks.
    r"|(?<!\w)neg(?:ative)?[ _]prompts?\s?[:=].*?(?=\bsteps: ?\d|^(?:positive[ _])?prompt:|\Z)"
    r"|(?:^|(?<=[.,;] ))negatives?:.*?(?=\bsteps: ?\d|\Z)"
    r"|^steps: ?\d+,.*\Z|(?<!\w)steps: ?\d+, ?(?:sampler|schedule|cfg|size|seed).*\Z",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
# These stand for themselves; a phrase ends where they stand.
_PIECES = re.compile(
    r"<\w[\w-]*:[^<>\n]*>"  # <lora:add_detail:0.8>
    r"|(?<!\w)\(?(?i:embedding):[\w./\\-]+(?::" + NUMBER + r")?\)?"
    r"|<?(?<!\w)(?:lora|lyco|hypernet):\w[\w./\\-]*(?::" + NUMBER + r")*"  # its brackets are lost
    r"|withLora\([^()]*\)"
    r"|https?://\S+"
    r"|__[\w*/.-]*[\w*]__"  # a wildcard
)
_ADDED = r"ADDCOMM|ADDBASE|ADDCOL|ADDROW"
_WORDS = re.compile(rf"(?<![\w'-])(?:BREAK|{_ADDED})(?![\w'-])")
# Where all is in capitals, "BREAK" is a word like others ("A BREAK DANCER", "TWO MEN BREAK A DOOR")
# but behind a mark or a line break, or where a thing begins and what stands before is none that
# could break it: no plural, no auxiliary.
_WORDS_AMONG_CAPITALS = re.compile(
    rf"(?<![\w'-])(?:{_ADDED})(?![\w'-])|(?:^|(?<=[,.;)\n])\s*)BREAK(?![\w'-])|\bBREAK(?=\s*(?:\n|$))"
    r"|(?<=[A-Z])(?<!S)(?<!EN)(?<!PEOPLE)(?<!THEY)(?<!\bTO)(?<!CAN)(?<!WILL)(?<!AND)(?<!OR)"
    r"\sBREAK(?=\s(?:AN?|THE|ONE|TWO|THREE|FOUR|FIVE|SIX|\d+)\s)"
)
# compel's ("a cat", "a dog").blend(0.7, 0.3)
_STRING = r"(?:\"[^\"\n]*\"|'[^'\n]*'|\u201c[^\u201c\u201d\n]*\u201d)"
_BLEND = re.compile(rf"\(\s*({_STRING}(?:\s*,\s*{_STRING})*)\s*\)\s*\.(?:blend|and)\(([^()]*)\)")
# "cat :1.2 AND dog": each part has a weight behind it, if any.
_AND = re.compile(r"(?<!\w)AND(?!\w)")
_PART_WEIGHT = re.compile(rf"(?<!\d)\s*:({NUMBER})\s*$")

# Parameters behind a prompt, as `--name value`; some devices make one dash of the two hyphens.
_PARAMETER = re.compile(r"(?<!\S)(?:--|[\u2013\u2014])([A-Za-z][\w-]*)(?=[\s=,]|$)")
# "-- no dogs": a slip, or a dash before what is missing.
_GAPPED_NO = re.compile(r"(?<!\S)--\s+no\s[^,.;\n\u2013\u2014]*?(?=\s--|[,.;\n\u2013\u2014]|$)")
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
_MOST_TOLD = 6


def read(prompt: str) -> Reading:
    """Read a prompt for its words; one without markup is unchanged.

    What `--no`, "Negative prompt:" or a weight of 0 or less names is ruled out, and left out whole.
    Alternatives leave nothing in `blanked`, since none of them has to be there.
    """
    eraser = Eraser(prompt)
    steps = (_blends, _pasted, _pieces, _parameters, brackets, _part_weights, weights, emphasis)
    for work in steps:
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


def _blends(eraser: Eraser) -> None:
    """Take out all but the strings' words, and those whose weight is below 0."""
    for match in _BLEND.finditer(eraser.prompt):
        eraser.speak(*match.span())
        eraser.erase(match.start(), match.start(1))
        eraser.erase(match.end(1), match.end(), mark=",")
        numbers = [float(number) for number in re.findall(NUMBER, match[2])]
        strings = list(re.finditer(_STRING, match[1]))
        numbers += [1.0] * (len(strings) - len(numbers))
        for string, number in zip(strings, numbers, strict=False):
            start, end = match.start(1) + string.start(), match.start(1) + string.end()
            eraser.erase(start, start + 1 if number > 0 else end)
            eraser.erase(end - 1, end)


def _pasted(eraser: Eraser) -> None:
    at = 0
    while match := _PASTED.search(eraser.prompt, at):
        at = match.start() + 1
        if eraser.is_free(match.start()):
            eraser.erase(*match.span())
            at = max(at, match.end())


def _pieces(eraser: Eraser) -> None:
    for match in _PIECES.finditer(eraser.prompt):
        if eraser.is_free(match.start()):
            eraser.erase(*match.span(), mark="," if "//" in match.group() else " ")
    is_mixed = any(map(str.islower, eraser.rest()))
    for match in (_WORDS if is_mixed else _WORDS_AMONG_CAPITALS).finditer(eraser.prompt):
        if eraser.is_free(match.start()):
            eraser.erase(*match.span(), mark=",")


def _parameters(eraser: Eraser) -> None:
    prompt = eraser.prompt
    for match in _GAPPED_NO.finditer(prompt):
        if eraser.is_free(match.start()):
            eraser.erase(*match.span())
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


def _part_weights(eraser: Eraser) -> None:
    """Take out the weights of parts that AND joins, and parts that weigh less than 0."""
    rest = eraser.rest()
    joints = [match.span() for match in _AND.finditer(rest) if eraser.is_free(match.start())]
    starts = [0, *(end for _, end in joints)]
    ends = [*(start for start, _ in joints), len(rest)]
    found = [
        _PART_WEIGHT.search(rest[:end], start) for start, end in zip(starts, ends, strict=True)
    ]
    if not joints or not any(found):
        return
    for (start, end), weight in zip(zip(starts, ends, strict=True), found, strict=True):
        if weight is not None and float(weight[1]) < 0:
            eraser.erase(start, end)
        elif weight is not None:
            eraser.erase(weight.start(), weight.end(1))
    for start, end in joints:
        eraser.erase(start, end, mark=",")

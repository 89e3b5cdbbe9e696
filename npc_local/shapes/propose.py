"""Turns what is wrong and what is there into negative prompts, from words only.

Targeted candidates name the error ('three circles', 'a green star on a pink background');
untargeted ones name what nobody asked for (the background, a colour). Nothing the prompt asks for
is ever proposed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from npc_local.agents.clean_negatives import MAX_WORDS
from npc_local.core.errors import PromptError
from npc_local.core.records import Kind
from npc_local.shapes.reading import read
from npc_local.shapes.scene import (
    COLORS,
    OPPOSITE,
    PATTERNS,
    SHAPES,
    Background,
    Group,
    Relation,
)
from npc_local.shapes.wording import (
    NOUNS,
    RELATIONS,
    Reading,
    background_phrase,
    listing,
    number_word,
    phrase,
    place_phrase,
    relation_phrase,
    side_phrase,
)

_OTHER_SIZE = {"larger": "smaller", "large": "smaller", "smaller": "larger", "small": "larger"}
_NAMED = rf"(?:({'|'.join(_OTHER_SIZE)}) )?(?:({'|'.join(COLORS)}) )?({'|'.join(NOUNS)})"
_SUBJECT = rf"\bthe {_NAMED} should be"
_PLACES = {place_phrase(region): region for region in OPPOSITE}
_SIDES = {side_phrase(side): side for side in RELATIONS}
_PLACE = re.compile(rf"{_SUBJECT} ({'|'.join(_PLACES)})\b")
_SIZE = re.compile(rf"{_SUBJECT} (larger|smaller|large|small)\b")
_RELATION = re.compile(rf"{_SUBJECT} ({'|'.join(_SIDES)}) (?:the|another) {_NAMED}\b")


def propose(wanted: Reading, seen: Reading, reason: str) -> list[tuple[str, Kind]]:
    """Return candidates, those first that proved to steer most.

    Args:
        wanted: what the prompt says.
        seen: what the caption says is in the picture.
        reason: the verifier's words, for what a caption's first sentence leaves out.
    """
    targeted = [*_extra(wanted, seen), *_miscounted(wanted, seen), *_misplaced(reason)]
    targeted += [*_wrong_background(wanted, seen), *_numbers(wanted, seen), *_total(wanted, seen)]
    untargeted = list(_incidental(wanted, seen))
    # The error together with what stands around it, in one phrase, steers hardest; after it comes
    # what nobody asked for (docs/results/shapes.md).
    together = [
        f"{error} on {around}"
        for around in untargeted[:1]
        for error in targeted
        if "background" in around and len(f"{error} on {around}".split()) <= MAX_WORDS
    ]
    ordered: list[tuple[list[str], Kind]] = [
        (together[:2], "targeted"),
        (untargeted[:2], "untargeted"),
        (targeted, "targeted"),
        (untargeted[2:], "untargeted"),
    ]
    chosen: dict[str, Kind] = {}
    for texts, kind in ordered:
        for text in texts:
            chosen.setdefault(text, kind)
    return [(text, kind) for text, kind in chosen.items() if not _asked_for(text, wanted)]


def foresee(wanted: Reading) -> list[tuple[str, Kind]]:
    """Return candidates from the prompt alone, for when nothing is known of the picture.

    Targeted: each group one too few, one too many, in another colour. Untargeted: the patterns and
    shapes that a picture may have and the prompt does not name.
    """
    targeted: list[str] = []
    untargeted: list[str] = []
    for group in wanted.groups:
        bare = replace(group, region=None, size=None)
        counts = [count for count in (group.count + 1, group.count - 1) if count]
        targeted += [phrase(replace(bare, count=count)) for count in counts]
        others = [color for color in COLORS if color != group.color] if group.color else []
        targeted += [phrase(replace(bare, color=color)) for color in others[:1]]
    if wanted.background[1] is None:
        untargeted += [f"a {pattern} background" for pattern in PATTERNS[1:]]
    named = {group.shape for group in wanted.groups}
    untargeted += [phrase(Group(shape, 1)) for shape in SHAPES if shape not in named]
    ordered: list[tuple[str, Kind]] = [
        *((text, "targeted") for text in targeted[:3]),
        *((text, "untargeted") for text in untargeted[:2]),
        *((text, "targeted") for text in targeted[3:]),
        *((text, "untargeted") for text in untargeted[2:]),
    ]
    return [(text, kind) for text, kind in dict(ordered).items() if not _asked_for(text, wanted)]


def _extra(wanted: Reading, seen: Reading) -> Iterator[str]:
    """Shapes nobody asked for, and shapes in a colour nobody asked for."""
    for group in seen.groups:
        same = [other for other in wanted.groups if other.shape == group.shape]
        if not same or all(other.color not in (None, group.color) for other in same):
            yield phrase(group)


def _miscounted(wanted: Reading, seen: Reading) -> Iterator[str]:
    """The number that is there, where another was asked for."""
    for kind in dict.fromkeys((group.shape, group.color) for group in wanted.groups):
        shape, color = kind
        asked = sum(g.count for g in wanted.groups if (g.shape, g.color) == kind)
        there = [g for g in seen.groups if g.shape == shape and color in (None, g.color)]
        number = sum(group.count for group in there)
        if number not in (0, asked):
            yield phrase(Group(shape, number, color))
            # Of several colours, only one that is too many by itself is to blame.
            alone = len(there) == 1
            yield from (phrase(group) for group in there if alone or group.count > asked)


def _misplaced(reason: str) -> Iterator[str]:
    """The place, side or size that a shape has instead of the one asked for."""
    for *named, place in _PLACE.findall(reason):
        yield _concise(f"{phrase(_one(*named))} {place_phrase(OPPOSITE[_PLACES[place]])}")
    for *named, side, size, color, noun in _RELATION.findall(reason):
        second = _one(size, color, noun)
        yield _turned(Relation(_one(*named), OPPOSITE[_SIDES[side]], second))
    for *named, size in _SIZE.findall(reason):
        yield phrase(replace(_one(*named), size=_OTHER_SIZE[size]))


def _one(size: str, color: str, noun: str) -> Group:
    """One of what the reason names, '' where it leaves size or colour open."""
    return Group(NOUNS[noun], 1, color or None, size=size or None)


def _turned(relation: Relation) -> str:
    """A relation in few enough words: 'a circle right of a star', 'red star left of blue star'."""
    first, second = relation.first, relation.second
    if first.size and second.size:  # told apart by that, as the reason does where colours do not
        first, second = replace(first, color=None), replace(second, color=None)
    relation = replace(relation, first=first, second=second)
    return _concise(relation_phrase(relation, side=RELATIONS[relation.side][-1]))


def _concise(text: str) -> str:
    """Without articles where the cleaner would have no room for them."""
    return re.sub(r"\ban? ", "", text) if len(text.split()) > MAX_WORDS else text


def _wrong_background(wanted: Reading, seen: Reading) -> Iterator[str]:
    """The background's colour or pattern, where another was asked for."""
    for asked, there in zip(wanted.background, seen.background, strict=True):
        if asked and there not in (None, "plain", asked):
            yield f"a {there} background"


def _numbers(wanted: Reading, seen: Reading) -> Iterator[str]:
    """The wrong numbers of shapes together, whatever their colours."""
    there, asked = Counter[str](), Counter[str]()
    for counts, groups in ((there, seen.groups), (asked, wanted.groups)):
        for group in groups:
            counts[group.shape] += group.count
    wrong = [Group(shape, number) for shape, number in there.items() if number != asked[shape]]
    text = listing([phrase(group, "one") for group in wrong])
    if 0 < len(text.split()) <= MAX_WORDS:
        yield text


def _total(wanted: Reading, seen: Reading) -> Iterator[str]:
    """How many shapes there are in all, where the prompt adds up to another number."""
    asked = sum(group.count for group in wanted.groups)
    there = sum(group.count for group in seen.groups)
    if asked and there not in (0, asked):
        yield "one shape" if there == 1 else f"{number_word(there)} shapes"


def _incidental(wanted: Reading, seen: Reading) -> Iterator[str]:
    """Background and colours that the prompt leaves open."""
    color, pattern = seen.background
    if wanted.background == (None, None) and color:
        yield background_phrase(Background(color, pattern or "plain"))
    elif wanted.background[0] is None and color:
        yield f"a {color} background"
    elif wanted.background[1] is None and pattern not in (None, "plain"):
        yield f"a {pattern} background"
    asked = {group.color for group in wanted.groups}
    for shade in dict.fromkeys(group.color for group in seen.groups):
        if shade not in asked:
            yield f"{shade} shapes"


def _asked_for(text: str, wanted: Reading) -> bool:
    """Whether the prompt asks for what a candidate says, in whatever words."""
    try:
        said = read(text)
    except PromptError:  # 'red shapes', 'five shapes': no prompt asks for shapes of any kind
        return False
    if said.relation is not None:
        return wanted.relation is not None and any(
            _relates(relation, said.relation)
            for relation in (wanted.relation, wanted.relation.turned)
        )
    if said.groups:
        return all(any(_implies(asked, group) for asked in wanted.groups) for group in said.groups)
    return all(
        there in (None, asked)
        for there, asked in zip(said.background, wanted.background, strict=True)
    )


def _relates(asked: Relation, said: Relation) -> bool:
    """Whether asking for one relation is asking for the other."""
    return (
        asked.side == said.side
        and _implies(asked.first, said.first)
        and _implies(asked.second, said.second)
    )


def _implies(asked: Group, said: Group) -> bool:
    """Whether asking for one group is asking for the other: the same, or with attributes open."""
    merged = {
        key: getattr(asked, key)
        for key in ("color", "region", "size")
        if getattr(said, key) is not None
    }
    bare = replace(asked, color=None, region=None, size=None)
    return replace(bare, **merged) == said

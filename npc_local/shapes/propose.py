"""Turns what is wrong and what is there into negative prompts, from words only.

Targeted candidates name the error ('three circles', 'a green star'); untargeted ones name what
nobody asked for (the background, a colour). Nothing the prompt asks for is ever proposed.
"""

from __future__ import annotations

import re

from npc_local.records import Kind
from npc_local.shapes.scene import Group
from npc_local.shapes.wording import NOUNS, NUMBERS, Reading, opposite, phrase, place_phrase

_PLACE = re.compile(r"the (?P<noun>\w+) should be (?:on the|at the) (?P<place>\w+)")
_SIZE = re.compile(r"the (?P<noun>\w+) should be (?P<size>larger|smaller)")
_WORD_REGION = {"left": "left", "right": "right", "top": "above", "bottom": "below"}


def propose(wanted: Reading, seen: Reading, reason: str) -> list[tuple[str, Kind]]:
    """Return candidates, the surest first, targeted before untargeted.

    Args:
        wanted: what the prompt says.
        seen: what the caption says is in the picture.
        reason: the verifier's words, for what a caption's first sentence leaves out.
    """
    targeted = [*_extra(wanted, seen), *_miscounted(wanted, seen), *_misplaced(reason)]
    targeted += _total(wanted, seen)
    chosen: dict[str, Kind] = {text: "targeted" for text in targeted}
    for text in _incidental(wanted, seen):
        chosen.setdefault(text, "untargeted")
    return [(text, kind) for text, kind in chosen.items() if not _asked_for(text, wanted)]


def _extra(wanted: Reading, seen: Reading) -> list[str]:
    """Shapes nobody asked for, and shapes in a colour nobody asked for."""
    found = []
    for group in seen.groups:
        same = [other for other in wanted.groups if other.shape == group.shape]
        if not same or all(other.color not in (None, group.color) for other in same):
            found.append(phrase(group))
    return found


def _miscounted(wanted: Reading, seen: Reading) -> list[str]:
    """The number that is there, where another was asked for."""
    found = []
    for group in wanted.groups:
        there = [o for o in seen.groups if o.shape == group.shape and group.color in (None, o.color)]
        number = sum(other.count for other in there)
        if number not in (0, group.count):
            found.append(phrase(Group(group.shape, number, group.color)))
            found += [phrase(other) for other in there if other.count != group.count]
    return found


def _misplaced(reason: str) -> list[str]:
    """The place or size that a shape has instead of the one asked for."""
    found = []
    for match in _PLACE.finditer(reason):
        region = _WORD_REGION.get(match["place"])
        if region:
            found.append(f"a {NOUNS[match['noun']]} {place_phrase(opposite(region))}")
    for match in _SIZE.finditer(reason):
        other = "smaller" if match["size"] == "larger" else "larger"
        found.append(phrase(Group(NOUNS[match["noun"]], 1, None, None, other)))
    return found


def _total(wanted: Reading, seen: Reading) -> list[str]:
    """How many shapes there are in all, where the prompt adds up to another number."""
    asked = sum(group.count for group in wanted.groups)
    there = sum(group.count for group in seen.groups)
    if there in (0, asked) or there >= len(NUMBERS):
        return []
    return [f"{NUMBERS[there]} {'shape' if there == 1 else 'shapes'}"]


def _incidental(wanted: Reading, seen: Reading) -> list[str]:
    """Background and colours that the prompt leaves open."""
    color, pattern = seen.background
    found = []
    if wanted.background == (None, None) and color:
        kind = "" if pattern in (None, "plain") else f"{pattern} "
        found.append(f"a {kind}{color} background")
    asked = {group.color for group in wanted.groups}
    for group in seen.groups:
        if group.color not in asked:
            found.append(f"{group.color} shapes")
    return found


def _asked_for(text: str, wanted: Reading) -> bool:
    return any(text == phrase(Group(g.shape, g.count, g.color)) for g in wanted.groups)

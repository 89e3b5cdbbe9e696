"""What a prompt claims, checked one by one against what the detector saw.

The verifier of the shapes world: exact, and the same for the loop, for training and for benchmarks.
"""

from __future__ import annotations

from dataclasses import dataclass

from npc_local.shapes.caption import groups_of
from npc_local.shapes.scene import CANVAS, Group, Scene, Thing
from npc_local.shapes.wording import NUMBERS, Reading, listing, phrase, place_phrase, plural

_MIDDLE = 4.0  # pixels to each side of the middle that are neither left nor right
_RATIO = 1.2  # how many times larger 'larger' is


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim, whether it holds, and what is wrong if not."""

    claim: str
    holds: bool
    wrong: str = ""


def check(reading: Reading, scene: Scene) -> tuple[Finding, ...]:
    """Check every claim of a prompt against a scene.

    Claims: the number of each named shape, its colour, place and size, the background where the
    prompt names one, and that nothing else is there.
    """
    findings: list[Finding] = []
    for group in reading.groups:
        findings += _group(group, reading.groups, scene)
    if reading.groups:
        findings.append(_nothing_else(reading.groups, scene))
    findings += _background(reading, scene)
    return tuple(findings)


def matches(group: Group, thing: Thing) -> bool:
    """Whether a thing has the group's shape and, where it names one, its colour."""
    return thing.shape == group.shape and group.color in (None, thing.color)


def in_region(region: str, thing: Thing) -> bool:
    """Whether a thing lies on that side of the middle."""
    middle = CANVAS / 2
    return {
        "left": thing.x < middle - _MIDDLE,
        "right": thing.x > middle + _MIDDLE,
        "above": thing.y < middle - _MIDDLE,
        "below": thing.y > middle + _MIDDLE,
    }[region]


def number_word(number: int) -> str:
    """'none', 'one', ..., 'nine', '10', ..."""
    return "none" if number == 0 else NUMBERS[number] if number < len(NUMBERS) else str(number)


def _group(group: Group, groups: tuple[Group, ...], scene: Scene) -> list[Finding]:
    of_shape = [thing for thing in scene.things if thing.shape == group.shape]
    found = [thing for thing in of_shape if matches(group, thing)]
    namesakes = [other for other in groups if other.shape == group.shape]
    findings = []
    if group is namesakes[0]:
        wanted = sum(other.count for other in namesakes)
        findings.append(_number(group.shape, wanted, len(of_shape)))
    if group.color:
        colored = Group(group.shape, group.count, group.color)
        claim = phrase(colored, "one")
        others = sorted({thing.color for thing in of_shape if thing.color != group.color})
        instead = f" (there is {listing(others)})" if others and len(namesakes) == 1 else ""
        wrong = f"expected {claim}, found {number_word(len(found))}{instead}"
        findings.append(Finding(claim, len(found) == group.count, wrong))
    name = group.shape if group.count == 1 else plural(group.shape)
    if group.region:
        inside = bool(found) and all(in_region(group.region, thing) for thing in found)
        place = place_phrase(group.region)
        findings.append(Finding(f"{name} {place}", inside, f"the {name} should be {place}"))
    if group.size:
        holds = _size_holds(group, groups, found, scene)
        wrong = f"the {name} should be {group.size}"
        findings.append(Finding(f"{group.size} {name}", holds, wrong))
    return findings


def _number(shape: str, wanted: int, found: int) -> Finding:
    claim = phrase(Group(shape, wanted), "one")
    return Finding(claim, found == wanted, f"expected {claim}, found {number_word(found)}")


def _size_holds(
    group: Group, groups: tuple[Group, ...], found: list[Thing], scene: Scene
) -> bool:
    rivals = [other for other in groups if other.size and other.size != group.size]
    if not rivals:
        wanted = {"larger": "large", "smaller": "small"}[str(group.size)]
        return bool(found) and all(thing.size == wanted for thing in found)
    others = [thing for thing in scene.things if any(matches(rival, thing) for rival in rivals)]
    if not found or not others:
        return False
    big, small = (found, others) if group.size == "larger" else (others, found)
    return min(thing.radius for thing in big) > _RATIO * max(thing.radius for thing in small)


def _nothing_else(groups: tuple[Group, ...], scene: Scene) -> Finding:
    named = {group.shape for group in groups}
    extra = [group for group in groups_of(scene) if group.shape not in named]
    words = [_extra_phrase(group) for group in extra]
    return Finding("nothing else", not extra, listing(words))


def _extra_phrase(group: Group) -> str:
    article, rest = phrase(group).split(" ", 1)
    return f"{'an' if group.count == 1 else article} extra {rest}"


def _background(reading: Reading, scene: Scene) -> list[Finding]:
    findings = []
    seen = scene.background
    for wanted, found in zip(reading.background, (seen.color, seen.pattern), strict=True):
        if wanted:
            wrong = f"the background is {found}, not {wanted}"
            findings.append(Finding(f"{wanted} background", wanted == found, wrong))
    return findings

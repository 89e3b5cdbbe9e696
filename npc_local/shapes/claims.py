"""What a prompt claims, checked one by one against what the detector saw.

The verifier of the shapes world: exact, and the same for the loop, for training and for benchmarks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from math import hypot, log

# scikit-image, which the detector needs, does not work without SciPy.
from scipy.optimize import linear_sum_assignment

from npc_local.core.records import ClaimKind
from npc_local.shapes.scene import CANVAS, Background, Group, Relation, Scene, Thing, groups_of
from npc_local.shapes.wording import (
    Reading,
    listing,
    number_word,
    phrase,
    place_phrase,
    plural,
    side_phrase,
)

_MIDDLE = 4.0  # pixels to each side of the middle that are neither left nor right
_APART = 4.0  # pixels by which one thing must lie further to a side than another
# Free space between things that are next to each other, where they are small: a quarter of the
# picture. Neighbours on the grid (`scene`) have less between them, things at opposite edges more.
_NEAR = CANVAS / 4
_RATIO = 1.2  # how many times larger 'larger' is
# What decides who is who among things of one shape, after their colour. Where two ways leave as
# many faults, sizes are taken as they are, and the place or the relation is what is wrong.
_ORDERS = tuple(permutations(("size", "place", "side")))
_WEIGHTS = (1e6, 1e3, 1.0)  # of first, second and third

Groups = tuple[Group, ...]
# The things that a group's place, side and size are judged by, a list for each group, in order.
Shares = list[list[Thing]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim, whether it holds, and what is wrong if not."""

    claim: str
    holds: bool
    wrong: str = ""
    kind: ClaimKind = "other"


def check(reading: Reading, scene: Scene) -> tuple[Finding, ...]:
    """Check every claim of a prompt against a scene.

    Claims: the number of each named shape, its colour, place and size, where it is as seen from
    another, the background where the prompt names one, and that nothing else is there. A place is
    judged by the picture, a relation by the two alone. Where groups name one shape, its things are
    shared out among them so that the fewest claims are wrong: 'a circle on the left and a circle on
    the right' holds when any circle is on each side.
    """
    relation = reading.relation
    groups = _merge(reading.groups) if relation is None else reading.groups
    orders = _ORDERS if any(len(_namesakes(group, groups)) > 1 for group in groups) else _ORDERS[:1]
    shared = (_share_out(groups, scene, relation, order) for order in orders)
    candidates = (_findings(groups, relation, scene, shares) for shares in shared)
    findings = min(candidates, key=lambda claims: sum(not claim.holds for claim in claims))
    return (*findings, *_background(reading, scene))


def _findings(
    groups: Groups, relation: Relation | None, scene: Scene, shares: Shares
) -> list[Finding]:
    findings: list[Finding] = []
    for index, (group, share) in enumerate(zip(groups, shares, strict=True)):
        before = groups[:index]
        if all(other.shape != group.shape for other in before):
            findings.append(_number(group.shape, groups, scene))
        if group.color and all(not _same_kind(other, group) for other in before):
            findings.append(_color(group, groups, scene))
        if group.region:
            findings.append(_place(group, groups, share))
        if group.size:
            findings.append(_size(group, groups, share, shares))
    if relation is not None:
        findings.append(_relation(relation, shares))
    if groups:
        findings.append(_nothing_else(groups, scene))
    return findings


def demands(reading: Reading) -> tuple[tuple[str, ClaimKind], ...]:
    """Name every claim of a prompt with its kind, in the order of `check`: of no scene."""
    empty = Scene((), Background("white", "plain"))
    return tuple((finding.claim, finding.kind) for finding in check(reading, empty))


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


def on_side(side: str, thing: Thing, other: Thing) -> bool:
    """Whether a thing lies to that side of another, wherever in the picture the two are.

    'beside' is near, in any direction, and not on each other: the space between the two is at most
    the mean of their sizes, so that no third fits in, or a quarter of the picture if that is more.
    """
    right, down = thing.x - other.x, thing.y - other.y
    apart, reach = hypot(right, down), thing.radius + other.radius
    return {
        "left": right < -_APART,
        "right": right > _APART,
        "above": down < -_APART,
        "below": down > _APART,
        "beside": max(thing.radius, other.radius) < apart <= reach + max(reach, _NEAR),
    }[side]


def _merge(groups: Groups) -> Groups:
    """'A circle and a circle' are two circles."""
    counts: Counter[Group] = Counter()
    for group in groups:
        counts[replace(group, count=0)] += group.count
    return tuple(replace(group, count=count) for group, count in counts.items())


def _same_kind(a: Group, b: Group) -> bool:
    return (a.shape, a.color) == (b.shape, b.color)


def _namesakes(group: Group, groups: Groups) -> Groups:
    return tuple(other for other in groups if other.shape == group.shape)


def _share_out(
    groups: Groups, scene: Scene, relation: Relation | None, order: tuple[str, ...]
) -> Shares:
    """Give each group the things that match it; groups that name one shape share its things out.

    They are shared out by colour, then by size, place and side in the order given.
    """
    sides = (None,) * len(groups) if relation is None else (relation.side, relation.turned.side)
    shares: Shares = [[] for _ in groups]
    for shape in dict.fromkeys(group.shape for group in groups):
        things = [thing for thing in scene.things if thing.shape == shape]
        namesakes = [index for index, group in enumerate(groups) if group.shape == shape]
        slots = [index for index in namesakes for _ in range(groups[index].count)]
        if len(namesakes) == 1:
            pairs = [(namesakes[0], thing) for thing in things]
        else:
            faults = [
                [_misfit(groups[i], sides[i], thing, order) for thing in things] for i in slots
            ]
            rows, columns = linear_sum_assignment(faults)
            pairs = [(slots[i], things[j]) for i, j in zip(rows, columns, strict=True)]
        for index, thing in pairs:
            if matches(groups[index], thing):
                shares[index].append(thing)
    return shares


def _misfit(group: Group, side: str | None, thing: Thing, order: tuple[str, ...]) -> float:
    """How badly a thing fits a group: by colour before all else, then in the order given."""
    # What is to be furthest left is the thing that is; what is to be larger, the largest.
    along = {"left": thing.x, "right": -thing.x, "above": thing.y, "below": -thing.y}
    growth = {"larger": -1, "large": -1, "smaller": 1, "small": 1}
    misfits = {
        "size": growth.get(group.size or "", 0) * log(thing.radius),
        "place": float(group.region is not None and not in_region(group.region, thing)),
        "side": along.get(side or "", 0.0) / CANVAS,
    }
    color = 1e9 * (group.color not in (None, thing.color))
    weighted = zip(_WEIGHTS, order, strict=True)
    return color + sum(weight * misfits[name] for weight, name in weighted)


def _expected(claim: str, number: int, instead: str = "") -> str:
    return f"expected {claim}, found {number_word(number) if number else 'none'}{instead}"


def _number(shape: str, groups: Groups, scene: Scene) -> Finding:
    wanted = sum(group.count for group in groups if group.shape == shape)
    number = sum(thing.shape == shape for thing in scene.things)
    claim = phrase(Group(shape, wanted), "one")
    return Finding(claim, number == wanted, _expected(claim, number), "count")


def _color(group: Group, groups: Groups, scene: Scene) -> Finding:
    namesakes = _namesakes(group, groups)
    least = sum(other.count for other in namesakes if other.color == group.color)
    open_ = sum(other.count for other in namesakes if other.color is None)
    colors = Counter(thing.color for thing in scene.things if thing.shape == group.shape)
    number = colors.pop(str(group.color), 0)
    claim = phrase(Group(group.shape, least, group.color), "one")
    others = [f"{number_word(count)} {color}" for color, count in sorted(colors.items())]
    # Where other colours are asked for as well, naming them here would mislead.
    instead = f" but {listing(others)}" if others and len(namesakes) == 1 else ""
    holds = least <= number <= least + open_
    return Finding(claim, holds, _expected(claim, number, instead), "colour")


def _name(group: Group, groups: Groups, sized: bool = True) -> str:
    """'circles', with what tells them from other groups of the same shape: colour, size if `sized`.

    A size tells groups apart where their colours do not.
    """
    namesakes = _namesakes(group, groups)
    color = group.color if len(namesakes) > 1 else None
    alike = [other for other in namesakes if other.color == group.color]
    size = group.size if sized and len({other.size for other in alike}) > 1 else None
    return " ".join(filter(None, (size, color, _noun(group))))


def _noun(group: Group) -> str:
    return group.shape if group.count == 1 else plural(group.shape)


def _place(group: Group, groups: Groups, share: list[Thing]) -> Finding:
    name, place = _name(group, groups), place_phrase(str(group.region))
    wrong = f"the {name} should be {place}" if share else _missing(group, f"{name} {place}")
    holds = bool(share) and all(in_region(str(group.region), thing) for thing in share)
    return Finding(f"{name} {place}", holds, wrong, "relation")


def _relation(relation: Relation, shares: Shares) -> Finding:
    """The two compared, wherever in the picture they are."""
    groups = relation.first, relation.second
    first, second = (_name(group, groups) for group in groups)
    side, (share, others) = side_phrase(relation.side), shares
    other = f"another {second}" if first == second else f"the {second}"
    claim = f"{first} {side} {other.removeprefix('the ')}"
    if relation.side == "beside":  # which people mean in more than one way
        claim += " (near, in any direction)"
    if not share:
        wrong = _missing(relation.first, f"{first} {side} {other}")
    elif not others:
        be = "is" if relation.first.count == 1 else "are"
        wrong = _missing(relation.second, f"{second} that the {first} {be} {side}")
    else:
        wrong = f"the {first} should be {side} {other}"
    holds = bool(share and others) and _related(relation.side, share, others)
    return Finding(claim, holds, wrong, "relation")


def _related(side: str, share: list[Thing], others: list[Thing]) -> bool:
    """Whether each thing of the one is to that side of each of the other; 'beside': hang together.

    A row of circles that ends at a star is next to it, though the first of them is not: all must
    be reached by steps from one to the next.
    """
    if side != "beside":
        return all(on_side(side, thing, other) for thing in share for other in others)
    reached, rest = [share[0]], [*share[1:], *others]
    while step := [thing for thing in rest if any(on_side(side, thing, r) for r in reached)]:
        reached += step
        rest = [thing for thing in rest if thing not in step]
    return not rest


def _missing(group: Group, what: str) -> str:
    return f"there {'is' if group.count == 1 else 'are'} no {what}"


def _size(group: Group, groups: Groups, share: list[Thing], shares: Shares) -> Finding:
    name, size = _name(group, groups, sized=False), str(group.size)
    claim = f"{size} {name}"
    if not share:
        return Finding(claim, False, _missing(group, claim), "size")
    opposite = {"larger": "smaller", "smaller": "larger"}.get(size)
    rivals = [index for index, other in enumerate(groups) if opposite and other.size == opposite]
    others = [thing for index in rivals for thing in shares[index]]
    if rivals and not others:
        be = "is" if group.count == 1 else "are"
        wrong = f"there is nothing that the {name} {be} {size} than"
        return Finding(claim, False, wrong, "size")
    if rivals:
        big, small = (share, others) if size == "larger" else (others, share)
        least, most = min(thing.radius for thing in big), max(thing.radius for thing in small)
        holds = least > _RATIO * most
    else:
        word = {"larger": "large", "smaller": "small"}.get(size, size)
        holds = all(thing.size == word for thing in share)
    return Finding(claim, holds, f"the {name} should be {size}", "size")


def _nothing_else(groups: Groups, scene: Scene) -> Finding:
    named = {group.shape for group in groups}
    extra = [group for group in groups_of(scene) if group.shape not in named]
    words = [_extra_phrase(group) for group in extra]
    return Finding("nothing else", not extra, listing(words))


def _extra_phrase(group: Group) -> str:
    article, rest = phrase(group).split(" ", 1)
    return f"{'an' if group.count == 1 else article} extra {rest}"


def _background(reading: Reading, scene: Scene) -> Iterator[Finding]:
    seen = scene.background
    for wanted, there in zip(reading.background, (seen.color, seen.pattern), strict=True):
        if wanted:
            wrong = f"the background is {there}, not {wanted}"
            yield Finding(f"{wanted} background", wanted == there, wrong)

"""Text in pictures, in every script that this machine has a font for.

A font of Latin, Greek and Cyrillic comes along; what it lacks is drawn with the fonts of the
system, chosen by what they cover. What no font covers comes out as U+FFFD, never as an empty box
that could be any letter. Colours, sizes and places are left to `sheet`.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import ImageDraw, ImageFont, features

from npc_local.core.prompts import is_control

_OWN = Path(__file__).parent / "fonts" / "DejaVuSans-subset.ttf"
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
# Families with many scripts come first, then those that systems have for one; others by name.
_PREFERRED = (
    *("notosans", "dejavusans", "arialunicode", "arial unicode", "segoeui", "freesans"),
    *(
        "pingfang",
        "hiragino",
        "sourcehan",
        "msyh",
        "yugoth",
        "meiryo",
        "malgun",
        "wqy",
        "droidsans",
    ),
    *(
        "droidsans",
        "simsun",
        "msgothic",
        "gulim",
        "nanum",
        "noto",
        "unifont",
        "liberationsans",
        "arial",
    ),
)
_STYLED = ("bold", "italic", "oblique", "mono", "condensed", "light", "thin", "black", "emoji")
_MOST_FONTS = 300  # examined; a designer's machine has thousands


@dataclass(frozen=True, slots=True)
class Face:
    """One font of a file; collections hold several."""

    path: Path
    number: int = 0

    def font(self, size: int) -> ImageFont.FreeTypeFont:
        """Return it in a size, in pixels."""
        return _font(self.path, self.number, size)


@dataclass(frozen=True, slots=True)
class Run:
    """Successive characters that one face draws."""

    text: str
    face: Face

    def length(self, size: int) -> float:
        """Return how wide it is, in pixels."""
        return self.face.font(size).getlength(self.text)


OWN = Face(_OWN)
"""The font that comes along."""


def length(text: str, size: int) -> float:
    """Return how wide a line of text is, in pixels."""
    return sum(run.length(size) for run in runs(text))


def draw(
    canvas: ImageDraw.ImageDraw,
    text: str,
    at: tuple[int, int],
    size: int,
    color: str,
    *,
    from_right: bool = False,
    width: int = 0,
) -> None:
    """Draw a line of text.

    Args:
        canvas: where to.
        text: the line.
        at: its left upper corner, in pixels.
        size: of the letters, in pixels.
        color: of the letters.
        from_right: it belongs to a text that `is_from_right`: it ends where the line does.
        width: how wide the line is, in pixels; without a say for others.
    """
    left, top = at
    parts, x = runs(text), float(left)
    if from_right:
        x += max(0.0, width - sum(run.length(size) for run in parts))
        parts = parts[::-1]
    baseline = top + round(size * 1.05)
    direction = ("rtl" if from_right else "ltr") if _can_turn() else None
    for run in parts:
        canvas.text(
            (x, baseline),
            run.text,
            fill=color,
            font=run.face.font(size),
            anchor="ls",
            direction=direction,
        )
        x += run.length(size)


def wrap(text: str, size: int, width: int, most: int) -> list[str]:
    """Break text into at most `most` lines of `width` pixels; what is cut ends in dots."""
    lines: list[str] = []
    for piece in _pieces(text):
        if lines and length(lines[-1] + piece.rstrip(), size) <= width:
            lines[-1] += piece
            continue
        lines.append("")
        for cluster in _clusters(piece.lstrip()):  # what is wider than a line goes on in the next
            if lines[-1] and length(lines[-1] + cluster, size) > width:
                lines.append("")
            lines[-1] += cluster
    lines = [line.strip() for line in lines]
    if len(lines) > most:
        clusters = _clusters(lines[most - 1])
        while clusters and length(f"{''.join(clusters)} ...", size) > width:
            clusters.pop()
        lines[most - 1 :] = [f"{''.join(clusters)} ..."]
    return lines


def is_from_right(text: str) -> bool:
    """Whether the first letter is of a script that is written from the right."""
    for character in text:
        if (kind := unicodedata.bidirectional(character)) in ("L", "R", "AL"):
            return kind != "L"
    return False


def runs(text: str) -> list[Run]:
    """Return a line as runs of few faces; one face that has all of it draws all of it."""
    faces = _faces(frozenset(text))
    parts: list[tuple[str, Face]] = []
    for cluster in _clusters(text):
        face = next((face for face in faces if _covers(face, cluster)), None)
        if face is None:
            cluster, face = _UNKNOWN, OWN
        elif cluster.isspace() and parts:
            face = parts[-1][1]
        if parts and parts[-1][1] == face:
            parts[-1] = parts[-1][0] + cluster, face
        else:
            parts.append((cluster, face))
    return [Run(part, face) for part, face in parts]


@cache
def _faces(characters: frozenset[str]) -> tuple[Face, ...]:
    """Return the faces that draw these characters, the first one most of them."""
    missing = {one for one in characters if not _covers(OWN, one)}
    if not missing:
        return (OWN,)
    for face in _system_faces():  # marks, ligatures and both directions come out right in one face
        if all(_covers(face, one) for one in characters):
            return (face, OWN)
    chosen = [OWN]
    for face in _system_faces():
        if more := {one for one in missing if _covers(face, one)}:
            chosen.append(face)
            missing -= more
        if not missing:
            break
    return tuple(chosen)


def _covers(face: Face, cluster: str) -> bool:
    known = _coverage(face)
    return all(ord(one) in known or _is_mute(one) for one in cluster)


def _is_mute(character: str) -> bool:
    """Whether a character has a say in how others look, and no look of its own."""
    return unicodedata.category(character) == "Cf" or 0xFE00 <= ord(character) <= 0xFE0F


@cache
def _coverage(face: Face) -> frozenset[int]:
    """Return the code points that a face has a glyph for; none, if it cannot be read."""
    from fontTools.ttLib import TTFont, TTLibError

    try:
        with TTFont(face.path, fontNumber=face.number, lazy=True) as font:
            outlines = {"glyf", "CFF ", "CFF2"} & set(font.keys())
            covered = font.getBestCmap() if outlines else None
    except (OSError, TTLibError, ValueError, KeyError, AssertionError):
        return frozenset()
    return frozenset(covered or ())


@cache
def _font(path: Path, number: int, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size, index=number)


@cache
def _system_faces() -> tuple[Face, ...]:
    """Return the fonts of this system that can be read, those first that fit best."""

    def rank(path: Path) -> tuple[bool, int, str]:
        name = path.name.lower()
        place = next((n for n, family in enumerate(_PREFERRED) if family in name), len(_PREFERRED))
        return any(style in name for style in _STYLED), place, name

    # The first face of a collection has the letters of all: the others differ in shapes and names.
    return tuple(Face(path) for path in sorted(_font_files(), key=rank)[:_MOST_FONTS])


def _font_files() -> Iterator[Path]:
    for directory in _font_directories():
        for place, folders, names in os.walk(directory):  # passes over what it may not read
            folders.sort()
            for name in names:
                if name.lower().endswith((".ttf", ".otf", ".ttc", ".otc")):
                    yield Path(place, name)


def _font_directories() -> Sequence[Path]:
    home = Path(os.path.expanduser("~"))
    if sys.platform == "darwin":
        places = [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts"]
    else:
        shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
        own = os.environ.get("XDG_DATA_HOME") or str(home / ".local" / "share")
        places = [Path(part) / "fonts" for part in [*shared.split(":"), own] if part]
        places.append(home / ".fonts")
    return list(dict.fromkeys(places))


def _pieces(text: str) -> Iterator[str]:
    """Yield where a line may break: words with the space before them, wide letters one by one."""
    clean = "".join(" " if is_control(one) or one.isspace() else one for one in text)
    for number, word in enumerate(clean.split()):
        piece = " " if number else ""
        for cluster in _clusters(word):
            bare = piece.strip()
            if bare and (_is_wide(cluster) or _is_wide(bare[-1])) and not _closes(cluster):
                yield piece
                piece = ""
            piece += cluster
        yield piece


def _is_wide(cluster: str) -> bool:
    """Whether it is of a script without spaces between words, as Chinese and Japanese are."""
    return unicodedata.east_asian_width(cluster[0]) in ("W", "F")


def _closes(cluster: str) -> bool:
    """Whether it may not begin a line."""
    return unicodedata.category(cluster[0]) in ("Pe", "Pf", "Po")


def _clusters(text: str) -> list[str]:
    """Return letters, each with the marks and joiners that belong to it."""
    clusters: list[str] = []
    for character in text:
        joined = bool(clusters) and (
            unicodedata.category(character).startswith("M")
            or character == "\N{ZERO WIDTH JOINER}"
            or clusters[-1].endswith("\N{ZERO WIDTH JOINER}")
        )
        if joined:
            clusters[-1] += character
        else:
            clusters.append(character)
    return clusters


@cache
def _can_turn() -> bool:
    """Whether Pillow has what it takes to lay out both directions."""
    return bool(features.check("raqm"))

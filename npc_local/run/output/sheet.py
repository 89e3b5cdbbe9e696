"""One picture of one correction: what was asked, what came out, what was tried, what won.

Where it is kept is left to `result_folder`, which font draws which letters to `lettering`. Marks
are drawn, so that they need no font.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image, ImageDraw

from npc_local.core.records import Attempt, Correction
from npc_local.run.output import lettering

_SMALLEST, _LARGEST = 256, 512  # a picture's longer side, in pixels
_MARGIN, _GAP, _FRAME, _MARK = 28, 24, 4, 22
_COLUMNS = 4
_PAD = 12  # inside a card
_TEXT = 208  # a card's text, at least: a narrow picture has a wider card
_NARROWEST = 620  # the sheet, so that a prompt above one picture can be read
_TITLE_LINES, _NEGATIVE_LINES, _REASON_LINES = 4, 3, 6

_PAPER, _CARD, _EDGE = "#f3f4f6", "#ffffff", "#d8dbe0"
_INK, _DIM = "#16181d", "#6a717c"
_RIGHT, _WRONG, _ANSWER = "#1a7f37", "#cf222e", "#1f5fbf"

_STATUS = {
    "already-correct": ("Correct at once", _RIGHT),
    "corrected": ("Corrected", _RIGHT),
    "best-effort": ("Best effort: none is correct", _WRONG),
    "error": ("Ended by an error", _WRONG),
}


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of text and how it looks."""

    text: str
    size: int
    color: str
    height: int
    from_right: bool = False


@dataclass(frozen=True, slots=True)
class _Card:
    """One image with what is said about it."""

    title: str
    picture: Image.Image
    correct: bool
    score: str
    answer: bool
    lines: list[_Line]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, edges included."""
        text = sum(line.height for line in self.lines)
        header = _MARK + 2 * _PAD
        height = header + self.picture.height + 2 * _FRAME + _PAD + text + _PAD
        return self.text_width + 2 * (_FRAME + _PAD), height

    @property
    def text_width(self) -> int:
        """Of the lines below the picture."""
        return max(self.picture.width, _TEXT)


def sheet(correction: Correction) -> Image.Image:
    """Draw everything that happened to one prompt.

    Args:
        correction: one with an original, whatever came after it.

    Raises:
        ValueError: it has no original, so there is nothing to show.
    """
    if correction.original is None:
        raise ValueError("a correction without an original has no sheet")
    cards = [
        _card(f"Attempt {index}" if index else "Original", attempt, attempt is correction.answer)
        for index, attempt in enumerate([correction.original, *correction.attempts])
    ]
    rows = _rows(cards)
    width = max(_NARROWEST, *(_row_width(row) for row in rows)) + 2 * _MARGIN
    head = _head(correction, width - 2 * _MARGIN)
    foot = _foot(correction, width - 2 * _MARGIN)
    heights = [max(card.size[1] for card in row) for row in rows]
    height = 2 * _MARGIN + sum(line.height for line in head + foot)
    height += sum(heights) + _GAP * (len(rows) + (1 if foot else 0))

    canvas = Image.new("RGB", (width, height), _PAPER)
    top = _draw_lines(canvas, head, _MARGIN, _MARGIN, width - 2 * _MARGIN) + _GAP
    for row, row_height in zip(rows, heights, strict=True):
        left = _MARGIN
        for card in row:
            _draw_card(canvas, card, left, top, row_height)
            left += card.size[0] + _GAP
        top += row_height + _GAP
    _draw_lines(canvas, foot, _MARGIN, top, width - 2 * _MARGIN)
    return canvas


def _card(title: str, attempt: Attempt, answer: bool) -> _Card:
    """Lay out one image: shown with its own pixels if small, shrunk if large."""
    image = attempt.render.image.convert("RGB")
    side = max(image.size)
    if side > _LARGEST:
        image.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    else:
        factor = math.ceil(_SMALLEST / side)
        image = image.resize(
            (image.width * factor, image.height * factor), Image.Resampling.NEAREST
        )
    width = max(image.width, _TEXT)
    lines: list[_Line] = []
    if attempt.candidate is None:
        lines += _wrap("as the model makes it", 15, _DIM, width, 1)
    else:
        negative, score = attempt.candidate.negative, attempt.candidate.score
        lines += _wrap(f"without: {negative.text}", 15, _INK, width, _NEGATIVE_LINES)
        lines += _wrap(f"{negative.kind}, salience {score:.3f}", 13, _DIM, width, 1)
    if attempt.render.fallbacks:
        memory = f"out of memory: {', '.join(attempt.render.fallbacks)}"
        lines += _wrap(memory, 13, _DIM, width, 2)
    verdict = attempt.verdict
    if reason := _wrap(verdict.reason, 14, _WRONG, width, _REASON_LINES):
        lines += [_Line("", reason[0].size, _WRONG, 6), *reason]
    return _Card(title, image, verdict.correct, f"{verdict.score:.2f}", answer, lines)


def _rows(cards: list[_Card]) -> list[list[_Card]]:
    """Spread the cards evenly over as few rows as they need."""
    count = math.ceil(len(cards) / _COLUMNS)
    columns = math.ceil(len(cards) / count)
    return [cards[start : start + columns] for start in range(0, len(cards), columns)]


def _row_width(row: list[_Card]) -> int:
    return sum(card.size[0] for card in row) + _GAP * (len(row) - 1)


def _head(correction: Correction, width: int) -> list[_Line]:
    """Return the prompt and how it ended."""
    label, color = _STATUS[correction.status]
    images = 1 + len(correction.attempts)
    facts = [
        label,
        f"{images} image{'s' if images > 1 else ''}",
        f"{correction.forwards} forwards",
        f"{correction.seconds:.1f} s",
        f"seed {correction.seed}",
    ]
    lines = _wrap(correction.prompt, 24, _INK, width, _TITLE_LINES)
    lines += _wrap("  |  ".join(facts), 16, color, width, 2)
    return lines + _wrap(correction.error or "", 15, _WRONG, width, _REASON_LINES)


def _foot(correction: Correction, width: int) -> list[_Line]:
    """Return the candidates that were not needed, or not reached."""
    left = correction.candidates[len(correction.attempts) :]
    names = [f"{candidate.negative.text} ({candidate.score:.3f})" for candidate in left]
    text = f"Not tried: {',  '.join(names)}" if names else ""
    return _wrap(text, 14, _DIM, width, _REASON_LINES)


def _wrap(text: str, size: int, color: str, width: int, most: int) -> list[_Line]:
    """Break text into at most `most` lines of `width` pixels; what is cut ends in dots."""
    lines = lettering.wrap(text, size, width, most)
    from_right = lettering.is_from_right(text)
    return [_Line(line, size, color, round(size * 1.4), from_right) for line in lines]


def _draw_lines(canvas: Image.Image, lines: list[_Line], left: int, top: int, width: int) -> int:
    """Draw lines one below the other, `width` pixels wide, and return where the last one ends."""
    draw = ImageDraw.Draw(canvas)
    for line in lines:
        at, from_right = (left, top), line.from_right
        lettering.draw(
            draw, line.text, at, line.size, line.color, from_right=from_right, width=width
        )
        top += line.height
    return top


def _draw_card(canvas: Image.Image, card: _Card, left: int, top: int, height: int) -> None:
    """Draw one card: mark, title, score; framed picture; text."""
    draw = ImageDraw.Draw(canvas)
    width = card.size[0]
    right, color = left + width, _RIGHT if card.correct else _WRONG
    edge, thickness = (_ANSWER, 3) if card.answer else (_EDGE, 1)
    box = (left, top, right - 1, top + height - 1)
    draw.rounded_rectangle(box, radius=10, fill=_CARD, outline=edge, width=thickness)

    middle = top + _PAD + _MARK // 2
    left += _PAD
    mark = _mark(card.correct)
    canvas.paste(mark, (left, top + _PAD), mark)
    font = lettering.OWN.font(17)
    at = left + _MARK + 8
    draw.text((at, middle), card.title, fill=_INK, font=font, anchor="lm")
    if card.answer:
        at += round(font.getlength(card.title)) + 10
        small = lettering.OWN.font(13)
        pill = (at, middle - 11, at + round(small.getlength("answer")) + 16, middle + 10)
        draw.rounded_rectangle(pill, radius=10, fill=_ANSWER)
        draw.text((at + 8, middle), "answer", fill=_CARD, font=small, anchor="lm")
    draw.text((right - _PAD, middle), card.score, fill=color, font=font, anchor="rm")

    top += _MARK + 2 * _PAD
    text = left
    left += (card.text_width - card.picture.width) // 2
    frame = (left, top, left + card.picture.width + 2 * _FRAME - 1)
    draw.rectangle((*frame, top + card.picture.height + 2 * _FRAME - 1), fill=color)
    canvas.paste(card.picture, (left + _FRAME, top + _FRAME))
    below = top + card.picture.height + 2 * _FRAME + _PAD
    _draw_lines(canvas, card.lines, text, below, card.text_width)


def _mark(correct: bool) -> Image.Image:
    """Draw a check or a cross on a disc, smoothed by drawing it four times as large."""
    unit = 4 * _MARK / 22  # the strokes below are on a grid of 22
    mark = Image.new("RGBA", (4 * _MARK, 4 * _MARK))
    draw = ImageDraw.Draw(mark)
    draw.ellipse((0, 0, 22 * unit - 1, 22 * unit - 1), fill=_RIGHT if correct else _WRONG)
    cross = [[(7, 7), (15, 15)], [(15, 7), (7, 15)]]
    for stroke in [[(6, 11.5), (9.8, 15), (16, 7.5)]] if correct else cross:
        points = [(x * unit, y * unit) for x, y in stroke]
        draw.line(points, fill="white", width=round(2.4 * unit), joint="curve")
    return mark.resize((_MARK, _MARK), Image.Resampling.LANCZOS)

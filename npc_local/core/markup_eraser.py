"""A prompt while markup of other tools is being taken out of it, and what is left in the end.

What markup is, `prompt_markup` and `markup_brackets` say; text in quotation marks is lettering.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

OPENING, CLOSING = "([{", ")]}"
NUMBER = r"-?(?:\d+\.?\d*|\.\d+)"
# In the quotation marks of several languages; a single mark that closes may be an apostrophe, too.
_LETTERING = re.compile(
    r"\"[^\"\n]{1,60}\"|\u201c[^\u201c\u201d\n]{1,60}\u201d"
    r"|\u201e[^\u201e\u201c\u201d\n]{1,60}[\u201c\u201d]"
    r"|\u00ab[^\u00ab\u00bb\n]{1,60}\u00bb|\u00bb[^\u00ab\u00bb\n]{1,60}\u00ab"
    r"|\u2039[^\u2039\u203a\n]{1,60}\u203a"
    r"|(?<!\w)\u2018[^\u2018\n]{1,60}?\u2019(?!\w)|(?<!\w)'[^'\n]{1,60}'(?!\w)"
)


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


@dataclass
class Eraser:
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

    def speak(self, start: int, end: int) -> None:
        """Read the characters [start, end) as words though they are in quotation marks."""
        self._lettering = [span for span in self._lettering if span[0] < start or span[1] > end]

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
            if any(map(piece.count, OPENING)) != any(map(piece.count, CLOSING)):
                piece = piece.strip(OPENING + CLOSING)  # ":1.3", not ":1.3)"
            if any(map(str.isalnum, piece)):
                yield piece
            reached = max(reached, end)


def _tidied(text: str) -> str:
    """Return a text without the gaps and stray commas that markup leaves behind."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"(?: ?,)+", ",", text)
    text = re.sub(r" (?=[,.;!?)\]])|(?<=[(\[]) ", "", text)
    return text.strip(" ,")

"""The captioner: sees one image and nothing else, so that no prompt colours its words."""

from __future__ import annotations

from PIL.Image import Image

from npc_local.agents.injection import spoken_to_judges
from npc_local.agents.structured_output import ask, request
from npc_local.backends.base import Backend
from npc_local.backends.schemas import NonEmpty, ReplyData
from npc_local.core.errors import BackendError
from npc_local.core.records import Caption

WORDS = (90, 160)  # what is asked for
TOLERATED = (40, 260)  # what is taken without asking again


class _CaptionData(ReplyData):
    caption: NonEmpty


async def describe(backend: Backend, image: Image) -> Caption:
    """Describe `image`.

    A caption far too short or too long is asked for once more; then the one nearer to what was
    asked for is taken and flagged: it is still a description, and the loop can go on with it. So
    is the first one if asking again fails.
    Text in the image that reads like an instruction to a judge is flagged as well.

    Raises:
        BackendError: no valid caption came back.
    """
    question = request("caption", {}, _CaptionData, (image,), max_tokens=512)
    text = (await ask(backend, question)).caption
    flags: list[str] = []
    if not _tolerable(text):
        again = {"words": _count(text)}
        question = request(
            "caption", {}, _CaptionData, (image,), again=again, seed=1, max_tokens=512
        )
        wanted = f"{WORDS[0]} to {WORDS[1]} were asked for"
        try:
            second = (await ask(backend, question)).caption
        except BackendError as error:
            flags.append(f"{_count(text)} words; {wanted}, and asking again failed: {error}")
        else:
            text = min(second, text, key=_distance)
            if not _tolerable(text):
                flags.append(f"{_count(text)} words; {wanted}, twice")
    flags += [f"text in the image speaks to a judge: {quote}" for quote in spoken_to_judges(text)]
    return Caption(text, tuple(flags))


def _count(text: str) -> int:
    return len(text.split())


def _tolerable(text: str) -> bool:
    return TOLERATED[0] <= _count(text) <= TOLERATED[1]


def _distance(text: str) -> int:
    """How many words there are too few or too many."""
    return max(WORDS[0] - _count(text), _count(text) - WORDS[1], 0)

"""The question that a model must answer before it gets work, and when a server falls silent.

It asks as the roles ask: an image for those who see, a list of closed objects, names to choose
from, bounded numbers, and as much room for the answer, so that a server which refuses their schemas
or a model which thinks too long is found out before anything is made.
"""

from __future__ import annotations

from typing import Annotated, Literal

from PIL import Image
from pydantic import Field

from npc_local.backends.base import Request
from npc_local.backends.schemas import NonEmpty, ReplyData

_MAX_TOKENS = 1024  # as a verdict


class _Colour(ReplyData):
    colour: Literal["red", "green", "blue", "none"]
    share: Annotated[float, Field(ge=0, le=1)]


class Seen(ReplyData):
    """The answer; whether it is true says nothing about the server."""

    seen: bool
    colours: list[_Colour] = Field(min_length=1)
    reason: NonEmpty


def canary(*, sees: bool) -> Request[Seen]:
    """Return the question, with an image for a model that will be shown some."""
    return Request(
        role="verify",
        fields={},
        system=(
            "You are asked about an image. There may be none.\n\n"
            'Answer with JSON: "seen": true if there is an image, otherwise false; "colours": list '
            'of {"colour": "red", "green", "blue" or "none", "share": from 0.0 to 1.0, how much of '
            'the image it fills}; "reason": a few words.'
        ),
        user="Is there an image, and what colour is it?",
        shape=Seen,
        images=(Image.new("RGB", (56, 56), "red"),) if sees else (),
        sampling={"max_tokens": _MAX_TOKENS},
    )

"""The question that a model must answer before it gets work, asked as the roles ask theirs."""

from __future__ import annotations

from PIL import Image

from npc_local.backends.base import Request
from npc_local.backends.schemas import ReplyData


class Seen(ReplyData):
    """The answer; whether it is true says nothing about the server."""

    seen: bool


def canary(*, sees: bool) -> Request[Seen]:
    """Return the question, with an image for a model that will be shown some."""
    return Request(
        role="verify",
        fields={},
        system='Answer with JSON: "seen": true if there is an image, else false.',
        user="Is there an image?",
        shape=Seen,
        images=(Image.new("RGB", (56, 56), "red"),) if sees else (),
        sampling={"max_tokens": 64},
    )

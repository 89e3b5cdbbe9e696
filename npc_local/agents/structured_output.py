"""How every role asks: strict templates filled with data, one shape for the answer.

Whatever comes from people, models or images goes into a template as a JSON value, so that no
closing tag, quote or dollar sign in it can end the place that it stands in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from PIL.Image import Image
from pydantic import BaseModel

from npc_local.agents.templating import render
from npc_local.backends.base import Backend, Request, Role
from npc_local.backends.schemas import validate
from npc_local.core.costs import count_reply
from npc_local.core.errors import BackendError

ShapeT = TypeVar("ShapeT", bound=BaseModel)

# Another opinion needs another sample: at temperature 0 every seed gives the same words.
_VARIED = 0.7


def request(
    role: Role,
    fields: Mapping[str, Any],
    shape: type[ShapeT],
    images: tuple[Image, ...] = (),
    *,
    template: str | None = None,
    again: Mapping[str, Any] | None = None,
    seed: int = 0,
    max_tokens: int,
) -> Request[ShapeT]:
    """Build a request. Strict rendering makes sure that every field reaches the user text.

    Args:
        role: who is asked.
        fields: the values behind the user text.
        shape: what the reply must be.
        images: what the role sees.
        template: the name of the templates, where it is not the role's.
        again: further fields, of `ROLE.again.txt`, when an answer was not good enough.
        seed: 0 for the answer at temperature 0; any other number for another opinion.
        max_tokens: the longest answer.
    """
    name = template or role
    user = render(f"{name}.user.txt", _as_json(fields))
    if again is not None:
        user += "\n\n" + render(f"{role}.again.txt", _as_json(again))
    return Request(
        role=role,
        fields={**fields, **(again or {})},
        system=render(f"{name}.system.txt", {}),
        user=user,
        shape=shape,
        images=images,
        sampling={
            "temperature": _VARIED if seed else 0.0,
            "seed": seed,
            "max_tokens": max_tokens,
        },
    )


async def ask(backend: Backend, question: Request[ShapeT]) -> ShapeT:
    """Return the reply's data in the question's shape.

    Raises:
        BackendError: the reply is something else; it names backend, role and fault.
    """
    reply = await backend.complete(question)
    count_reply(reply.usage)
    try:
        return validate(question.shape, reply.data)
    except ValueError as error:
        raise BackendError(
            f"backend {backend.name}: {question.role}: invalid reply: {error}"
        ) from error


def _as_json(fields: Mapping[str, Any]) -> dict[str, str]:
    # Half a surrogate pair, which no client can send, becomes the JSON escape that stands for it.
    return {
        key: json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
        for key, value in fields.items()
    }

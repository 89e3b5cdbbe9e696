"""How every role asks: strict templates filled with data, closed schemas, validated replies.

Whatever comes from people, models or images goes into a template as a JSON value, so that no
closing tag, quote or dollar sign in it can end the place that it stands in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from npc_local.agents.templating import render
from npc_local.backends.base import Backend, Request, Role
from npc_local.core.costs import count_reply
from npc_local.core.errors import BackendError

Text = Annotated[str, StringConstraints(strip_whitespace=True)]
NonEmpty = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

# Another opinion needs another sample: at temperature 0 every seed gives the same words.
_VARIED = 0.7

Schema = Mapping[str, Any]
STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}


class Data(BaseModel):
    """What a reply must be: exactly these keys, exactly these types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


DataT = TypeVar("DataT", bound=Data)


# Schemas are for backends that constrain decoding and ask again; replies are checked against `Data`
# all the same. They are closed and flat, with the few keywords that every server takes.


def closed(**properties: Schema) -> Schema:
    """Return the JSON schema of a closed object: all properties required, no others allowed."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def list_of(items: Schema) -> Schema:
    """Return the JSON schema of a list."""
    return {"type": "array", "items": items}


def one_of(*names: str) -> Schema:
    """Return the JSON schema of one of these strings."""
    return {"type": "string", "enum": list(names)}


def request(
    role: Role,
    fields: Mapping[str, Any],
    schema: Schema,
    images: tuple[Image, ...] = (),
    *,
    template: str | None = None,
    again: Mapping[str, Any] | None = None,
    seed: int = 0,
    max_tokens: int,
) -> Request:
    """Build a request. Strict rendering makes sure that every field reaches the user text.

    Args:
        role: who is asked.
        fields: the values behind the user text.
        schema: what the reply must be.
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
        schema=schema,
        images=images,
        sampling={
            "temperature": _VARIED if seed else 0.0,
            "seed": seed,
            "max_tokens": max_tokens,
        },
    )


async def ask(backend: Backend, question: Request, shape: type[DataT]) -> DataT:
    """Return the reply's data in `shape`.

    Raises:
        BackendError: the reply is something else; it names backend, role and fault.
    """
    reply = await backend.complete(question)
    count_reply(reply.usage)
    try:
        return shape.model_validate(reply.data)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, detail['loc'])) or 'reply'}: {detail['msg']}"
            for detail in error.errors(include_url=False)
        )
        raise BackendError(
            f"backend {backend.name}: {question.role}: invalid reply: {faults}"
        ) from error


def _as_json(fields: Mapping[str, Any]) -> dict[str, str]:
    # Half a surrogate pair, which no client can send, becomes the JSON escape that stands for it.
    return {
        key: json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
        for key, value in fields.items()
    }

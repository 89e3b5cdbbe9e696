"""The three agents: verify, describe, propose. Template -> backend -> validated record.

A reply that does not hold up raises `BackendError`: it never becomes a verdict, a caption or a
candidate. How a backend reaches its model, and whether it asks again, is the backend's matter.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from npc_local import phrases
from npc_local.backends.base import Backend, Request, Role
from npc_local.errors import BackendError
from npc_local.records import Caption, Claim, Kind, Negative, Verdict
from npc_local.templating import render

log = logging.getLogger(__name__)

Text = Annotated[str, StringConstraints(strip_whitespace=True)]
NonEmpty = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Data(BaseModel):
    """What a reply must be: exactly these keys, exactly these types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _ClaimData(_Data):
    text: NonEmpty
    holds: bool


class _VerdictData(_Data):
    claims: list[_ClaimData] = []
    reason: Text
    correct: bool
    score: float = Field(ge=0, le=1)


class _CaptionData(_Data):
    caption: NonEmpty


class _NegativeData(_Data):
    text: str
    kind: Kind


class _ProposalData(_Data):
    negatives: list[_NegativeData]


def _object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a closed object: all properties required, no others allowed."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_STRING = {"type": "string"}
_BOOLEAN = {"type": "boolean"}

# What the models above check, for backends that constrain decoding. Bounds stay out (not every
# server takes them); the order has a model look at the claims before it commits to a verdict.
_VERDICT_SCHEMA = _object(
    claims=_list(_object(text=_STRING, holds=_BOOLEAN)),
    reason=_STRING,
    correct=_BOOLEAN,
    score={"type": "number"},
)
_CAPTION_SCHEMA = _object(caption=_STRING)
_PROPOSAL_SCHEMA = _object(
    negatives=_list(
        _object(text=_STRING, kind={"type": "string", "enum": ["targeted", "untargeted"]})
    )
)


async def verify(backend: Backend, prompt: str, image: Image) -> Verdict:
    """Judge whether `image` shows what `prompt` asks for.

    Raises:
        BackendError: no valid verdict came back; one that rejects without a reason is not valid.
        PromptError: the backend cannot judge such a prompt.
    """
    request = _request("verify", {"prompt": prompt}, _VERDICT_SCHEMA, (image,), max_tokens=1024)
    data = await _ask(backend, request, _VerdictData)
    if not data.correct and not data.reason:
        raise BackendError(f"backend {backend.name}: verify: rejects the image without a reason")
    return Verdict(
        correct=data.correct,
        score=data.score,
        reason="" if data.correct else data.reason,
        claims=tuple(Claim(claim.text, claim.holds) for claim in data.claims),
    )


async def describe(backend: Backend, image: Image) -> Caption:
    """Describe `image`. The captioner sees nothing else, so that no prompt colours its words.

    Raises:
        BackendError: no valid caption came back.
    """
    request = _request("caption", {}, _CAPTION_SCHEMA, (image,), max_tokens=512)
    data = await _ask(backend, request, _CaptionData)
    return Caption(data.caption)


async def propose(
    backend: Backend, prompt: str, caption: Caption, reason: str, count: int
) -> tuple[Negative, ...]:
    """Propose at most `count` clean negative prompts for an image that failed for `reason`.

    Fewer may be left, or none: what `phrases.clean` rejects is logged with why.

    Raises:
        BackendError: no valid proposal came back.
        PromptError: the backend cannot work from such a prompt.
    """
    fields = {"prompt": prompt, "caption": caption.text, "reason": reason, "count": count}
    request = _request("propose", fields, _PROPOSAL_SCHEMA, max_tokens=512)
    data = await _ask(backend, request, _ProposalData)
    proposed = [Negative(negative.text, negative.kind) for negative in data.negatives]
    kept, rejected = phrases.clean(proposed, prompt)
    for refusal in rejected:
        log.info("negative prompt %r rejected: %s", refusal.text, refusal.reason)
    return kept[:count]


def _request(
    role: Role,
    fields: Mapping[str, Any],
    schema: Mapping[str, Any],
    images: tuple[Image, ...] = (),
    *,
    max_tokens: int,
) -> Request:
    """Build a request. Strict rendering makes sure that every field reaches the user text."""
    return Request(
        role=role,
        fields=fields,
        system=render(f"{role}.system.txt", {}),
        user=render(f"{role}.user.txt", fields),
        schema=schema,
        images=images,
        sampling={"temperature": 0.0, "max_tokens": max_tokens},
    )


DataT = TypeVar("DataT", bound=_Data)


async def _ask(backend: Backend, request: Request, shape: type[DataT]) -> DataT:
    """Return the reply's data in `shape`, or raise BackendError with backend, role and fault."""
    reply = await backend.complete(request)
    try:
        return shape.model_validate(reply.data)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, detail['loc'])) or 'reply'}: {detail['msg']}"
            for detail in error.errors(include_url=False)
        )
        raise BackendError(
            f"backend {backend.name}: {request.role}: invalid reply: {faults}"
        ) from error

"""The one door through which agent roles are served: request in, validated JSON out.

A backend knows nothing of the loop; `agents` builds the requests and turns replies into records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from PIL.Image import Image
from pydantic import BaseModel

Role = Literal["checklist", "verify", "caption", "propose", "judge"]


ShapeT_co = TypeVar("ShapeT_co", bound=BaseModel, covariant=True)


@dataclass(frozen=True, slots=True)
class Request(Generic[ShapeT_co]):
    """One question to an agent.

    `fields` are the values behind `user`, so that a deterministic backend need not parse prose.
    `shape` is the model that the reply's data must validate against, and whose JSON schema a server
    may be held to (`schemas`). `sampling` names temperature, seed and max_tokens; requests that
    differ in the seed alone ask for another opinion.
    """

    role: Role
    fields: Mapping[str, Any]
    system: str
    user: str
    shape: type[ShapeT_co]
    images: tuple[Image, ...] = ()
    sampling: Mapping[str, float | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question to a server and what came of it, for the record of a reply.

    `outcome` is "ok" or what was wrong, `body` the whole answer as it came, `seconds` how long it
    took, backoff not included; no
    `temperature` where the model is sent none.
    """

    outcome: str
    seed: int
    temperature: float | None
    seconds: float
    body: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: parsed data, the raw text it came from, token counts where there are any.

    `usage` sums all `attempts`: those that led nowhere cost tokens too. The last one is this reply.
    """

    data: Mapping[str, Any]
    raw: str
    usage: Mapping[str, int] = field(default_factory=dict)
    finish_reason: str | None = None
    attempts: tuple[Exchange, ...] = ()


class Backend(Protocol):
    """Serves agent roles."""

    name: str

    async def complete(self, request: Request[Any]) -> Reply:
        """Answer one request, or raise `BackendError` (`PromptError` if the prompt is at fault)."""
        ...

    def accepts(self, prompt: str) -> None:
        """Raise `PromptError` if this backend can never serve `prompt`. Called before any work."""
        ...

    async def check(self) -> None:
        """Raise `BackendError` unless the backend can serve now. Called before any work."""
        ...

    def fingerprint(self) -> str:
        """Return a string that changes whenever the answers may change."""
        ...

    async def aclose(self) -> None:
        """Release whatever the backend holds."""
        ...

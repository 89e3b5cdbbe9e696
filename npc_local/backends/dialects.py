"""How a request is worded for a server of OpenAI's chat protocol, and how servers differ in that.

`kind` picks a `Dialect`; `response_format` and `temperature` of an entry cover servers that differ
from their kind. Other servers on this machine (llama.cpp, SGLang, Ollama) speak as vLLM does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL.Image import Image

from npc_local.backends.base import Request
from npc_local.backends.images import data_url
from npc_local.backends.schemas import json_schema, without
from npc_local.core.config.settings import ChatBackendSettings

_MAX_TOKENS = 1024
_NEW_SEED = 1_000_003  # far from the next vote's seed
_WARMER = 0.3

# Never sent. A grammar that ends a list at its bound makes a model that ran away look like an
# answer, and xgrammar lets control characters, which are no JSON, into strings of a least length
# (seen with vLLM 0.32).
_CHECKED_HERE = frozenset({"maxItems", "minLength"})
# OpenAI does not take these for every model; vLLM's grammar keeps to them.
_BOUNDS = _CHECKED_HERE | {"minItems", "minimum", "maximum"}
# Newer ones answer 400 to a temperature, unless their reasoning is off.
_HEATED = re.compile(r"(chatgpt-4o|gpt-3\.5|gpt-4)")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How requests are worded for one kind of server.

    `max_tokens` is the name of that field. `heated` matches the models that are known to take a
    temperature. `withheld` are schema keywords that are not sent, only checked here. `image` are
    further fields of an image.
    """

    max_tokens: str
    heated: re.Pattern[str] = re.compile("")
    withheld: frozenset[str] = _CHECKED_HERE
    image: Mapping[str, Any] = field(default_factory=dict)


DIALECTS = {
    "vllm": Dialect(max_tokens="max_tokens"),
    "openai": Dialect(
        max_tokens="max_completion_tokens",
        heated=_HEATED,
        withheld=_BOUNDS,
        image={"detail": "high"},  # objects are counted: no thumbnails
    ),
}
OURS = {
    *("model", "messages", "response_format", "n", "stream"),
    *("max_tokens", "max_completion_tokens", "temperature", "seed"),
}
"""Fields of a request that `extra_body` cannot set."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """What may differ from one try to the next; no temperature where the model takes none."""

    seed: int
    temperature: float | None


def takes_temperature(settings: ChatBackendSettings) -> bool:
    """Tell whether an entry's model is sent a temperature: if it is set, or known to be taken."""
    if settings.temperature is not None:
        return settings.temperature != "omit"
    return bool(
        DIALECTS[settings.kind].heated.match(settings.model)
        or settings.extra_body.get("reasoning_effort") == "none"
    )


def sampling(request: Request[Any], settings: ChatBackendSettings, again: int) -> Sampling:
    """Return how the try number `again` is sampled, from 0.

    The hotter of request and settings counts, so that votes differ; each further try is hotter
    still, with a new seed.
    """
    seed = int(request.sampling.get("seed", 0)) + _NEW_SEED * again
    if not takes_temperature(settings):
        return Sampling(seed, None)
    configured = settings.temperature
    hotter = max(
        configured if isinstance(configured, float | int) else 0.0,
        float(request.sampling.get("temperature", 0)),
    )
    return Sampling(seed, min(2.0, round(hotter + _WARMER * again, 6)))


def token_limit(request: Request[Any]) -> int:
    """Return the most tokens that an answer may have."""
    return int(request.sampling.get("max_tokens", _MAX_TOKENS))


def messages(request: Request[Any], settings: ChatBackendSettings) -> list[dict[str, Any]]:
    """Return system and user message: text alone as a string, images first, as data.

    Raises:
        TypeError, ValueError, OSError: an image that cannot be sent (`data_url`).
    """
    # Servers of text models answer 400 to a list of parts.
    content = _parts(request.images, request.user, settings) if request.images else request.user
    return [{"role": "system", "content": request.system}, {"role": "user", "content": content}]


def _parts(
    images: Sequence[Image], text: str, settings: ChatBackendSettings
) -> list[dict[str, Any]]:
    urls = [data_url(image, settings.max_pixels, settings.image_factor) for image in images]
    further = DIALECTS[settings.kind].image
    pictures = [{"type": "image_url", "image_url": {"url": url, **further}} for url in urls]
    return [*pictures, {"type": "text", "text": text}]


def body(
    request: Request[Any],
    settings: ChatBackendSettings,
    messages: Sequence[Mapping[str, Any]],
    sampling: Sampling,
) -> dict[str, Any]:
    """Return the body of a request for a chat completion.

    Raises:
        ValueError: the request's shape is not one that every server takes: a mistake of ours.
    """
    dialect = DIALECTS[settings.kind]
    schema = without(json_schema(request.shape), dialect.withheld)
    worded = {
        "model": settings.model,
        "messages": messages,
        "response_format": _response_format(request.role, schema, settings),
        dialect.max_tokens: token_limit(request),
        "seed": sampling.seed,
    }
    if sampling.temperature is not None:
        worded["temperature"] = sampling.temperature
    return worded | settings.extra_body


def _response_format(
    name: str, schema: Mapping[str, Any], settings: ChatBackendSettings
) -> dict[str, Any]:
    if settings.response_format == "json_object":
        return {"type": "json_object", "schema": schema}
    strict = {"name": name, "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": strict}


def hint(name: str, settings: ChatBackendSettings, status: int, answer: str) -> str:
    """Return what to do about a request of `[backends.NAME]` that a server refused, or nothing."""
    if status == 404:
        return "; is base_url right? it mostly ends in /v1"
    if status in (400, 422) and "temperature" in answer:
        return f'; set backends.{name}.temperature = "omit"'
    schemas = "response_format" in answer or "json_schema" in answer
    if status in (400, 422, 500) and schemas and settings.response_format == "json_schema":
        return f'; try backends.{name}.response_format = "json_object"'
    return ""

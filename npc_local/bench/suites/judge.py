"""Asks a backend to judge an image: the request, and what determines its answer.

Apart from the verifier: other instructions and one answer about the whole image, so that a loop is
not graded by the words that steered it. What an answer is worth is each benchmark's matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL.Image import Image

from npc_local.agents.structured_output import ShapeT, request
from npc_local.backends.base import Backend, Request
from npc_local.backends.schemas import json_schema
from npc_local.core.errors import ConfigError
from npc_local.core.hashing import code_digest

_MAX_TOKENS = 1024
_CODE = (
    *("bench/suites/judge.py", "agents/structured_output.py", "agents/templating.py"),
    "backends/schemas.py",
)


def judge_request(
    benchmark: str, fields: Mapping[str, Any], shape: type[ShapeT], images: tuple[Image, ...] = ()
) -> Request[ShapeT]:
    """Build the question to a judge from the templates `judge_BENCHMARK`."""
    return request(
        "judge", fields, shape, images, template=f"judge_{benchmark}", max_tokens=_MAX_TOKENS
    )


def determinants(backend: Backend, question: Request[Any], *code: str) -> dict[str, Any]:
    """Return, as JSON data, all but the image that decides a judgement.

    `code` names the benchmark's own module and templates, as `identity.code_digest` takes them.
    """
    return {
        "code": code_digest(*_CODE, *code),
        "judge": backend.fingerprint(),
        "system": question.system,
        "user": question.user,
        "schema": json_schema(question.shape),
        "sampling": dict(question.sampling),
    }


def required(backend: Backend | None, title: str) -> Backend:
    """Return the backend.

    Raises:
        ConfigError: there is none.
    """
    if backend is None:
        raise ConfigError(f"{title} needs a judge; name a backend of models.toml with --judge")
    return backend

"""What a chat server answered, judged: a whole answer, or an error that says what to do.

Whether the answer fits its schema is `schemas`' matter. Reasoning is never read: what a model
thinks on the way is not its answer.
"""

from __future__ import annotations

import json
from typing import Any

from npc_local.backends.http import shown
from npc_local.core.errors import BackendError

COMPLETE = "stop"
_RUNAWAY = 64  # trailing blanks of a cut-off answer that no writer of JSON means


def read_completion(body: str, max_tokens: int) -> tuple[str, dict[str, int]]:
    """Return content and token counts of a chat completion that ended by itself.

    Raises:
        BackendError: it did not, is empty, was refused, or is no chat completion.
    """
    try:
        answer = json.loads(body)
        (choice,) = answer["choices"]
        message, finish = choice["message"], choice["finish_reason"]
        content, refusal = message.get("content"), message.get("refusal")
        thoughts = message.get("reasoning") or message.get("reasoning_content")
        usage = answer.get("usage") or {}
        tokens = {key: count for key, count in usage.items() if type(count) is int}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BackendError(f"not a chat completion: {shown(body)}") from error
    if refusal:
        raise BackendError(f"the model refused: {shown(str(refusal))}")
    if not content and thoughts:
        raise BackendError(
            "the answer is empty and the model's reasoning is not: turn thinking off (extra_body = "
            "{ chat_template_kwargs = { enable_thinking = false } }), or start the server with the "
            "--reasoning-parser of this model, or with none"
        )
    if finish == "length":
        raise BackendError(_cut_off(content if isinstance(content, str) else "", max_tokens))
    if finish != COMPLETE:
        reason = shown(repr(finish))
        raise BackendError(f"the answer did not end by itself (finish_reason {reason})")
    if not isinstance(content, str) or not content.strip():
        raise BackendError("the answer is empty")
    return content, tokens


def _cut_off(content: str, max_tokens: int) -> str:
    if len(content) - len(content.rstrip()) >= _RUNAWAY:
        return (
            f"the answer ran away into blanks until {max_tokens} tokens: start vLLM with "
            '--structured-outputs-config \'{"backend":"xgrammar","disable_any_whitespace":true}\''
        )
    return f"the answer was cut off at {max_tokens} tokens (finish_reason length): {shown(content)}"


def find_model(body: str, model: str) -> dict[str, Any]:
    """Return what a server's list of models says of one that it must serve.

    Raises:
        BackendError: it does not serve it, or that is no list of models.
    """
    try:
        served = {entry["id"]: entry for entry in json.loads(body)["data"]}
        names = ", ".join(sorted(served))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BackendError(f"/models is not a list of models: {shown(body)}") from error
    if model not in served:
        raise BackendError(f"model {model!r} is not served; served: {shown(names) or 'none'}")
    return {key: served[model].get(key) for key in ("id", "root", "max_model_len")}

"""What a chat server answered, judged: a whole answer, one to ask for again, or an error.

Whether the answer fits its shape is `schemas`' matter. Reasoning is never read: what a model
thinks on the way is not its answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from npc_local.backends.http import shown
from npc_local.core.errors import BackendError

COMPLETE = "stop"
# How an answer ends that another seed may bring to its end: cut off, or stopped repeating itself.
_UNFINISHED = ("length", "repetition")
_RUNAWAY = 64  # trailing blanks of a cut-off answer that no writer of JSON means
_THINKS = (
    "the answer is empty and the model's reasoning is not: turn thinking off (extra_body = "
    "{ chat_template_kwargs = { enable_thinking = false } }), or start the server with the "
    "--reasoning-parser of this model, or with none"
)


class DoesNotFit(ValueError):
    """An answer that is none, but that another seed may better."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A chat completion: its text, how it ended, and the tokens that it cost, whatever it is worth.

    `thoughts` says whether there is reasoning apart from the text.
    """

    text: str
    finish: object
    refusal: str
    thoughts: bool
    tokens: dict[str, int]

    def whole(self, max_tokens: int) -> str:
        """Return the text of an answer that ended by itself.

        Raises:
            DoesNotFit: it is empty, or was cut off.
            BackendError: it was refused, or ended in a way that asking again does not change.
        """
        if self.refusal:
            raise BackendError(f"the model refused: {shown(self.refusal)}")
        empty = not self.text.strip()
        if empty and self.thoughts and self.finish not in _UNFINISHED:
            raise BackendError(_THINKS)
        if self.finish in _UNFINISHED:
            raise DoesNotFit(_unfinished(self, max_tokens))
        if self.finish != COMPLETE:
            reason = shown(repr(self.finish))
            raise BackendError(f"the answer did not end by itself (finish_reason {reason})")
        if empty:
            raise DoesNotFit("the answer is empty")
        return self.text


def _unfinished(completion: Completion, max_tokens: int) -> str:
    text = completion.text
    if completion.thoughts and not text.strip():
        return _THINKS
    if completion.finish == "repetition":
        return f"the answer went in circles (finish_reason repetition): {shown(text)}"
    if len(text) - len(text.rstrip()) >= _RUNAWAY:
        return (
            f"the answer ran away into blanks until {max_tokens} tokens: start vLLM with "
            '--structured-outputs-config \'{"backend":"xgrammar","disable_any_whitespace":true}\''
        )
    return f"the answer was cut off at {max_tokens} tokens (finish_reason length): {shown(text)}"


def read_completion(body: str) -> Completion:
    """Return the completion in a server's answer.

    Raises:
        BackendError: that is no chat completion.
    """
    try:
        answer = json.loads(body)
        (choice,) = answer["choices"]
        message, finish = choice["message"], choice["finish_reason"]
        parts = _parts(message.get("content"))
        usage = answer.get("usage") or {}
        return Completion(
            text="".join(text for kind, text in parts if kind == "text"),
            finish=finish,
            refusal=str(message.get("refusal") or ""),
            thoughts=bool(
                message.get("reasoning")
                or message.get("reasoning_content")
                or any(kind in ("thinking", "reasoning") for kind, _ in parts)
            ),
            tokens={key: count for key, count in usage.items() if type(count) is int},
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BackendError(f"not a chat completion: {shown(body)}") from error


def _parts(content: object) -> list[tuple[str, str]]:
    """Return the parts of a message, kind and text; servers send one text, or a list of parts."""
    if content is None:
        return []
    if isinstance(content, str):
        return [("text", content)]
    if not isinstance(content, list):
        raise TypeError("neither text nor parts")
    return [
        ("text" if part["type"] == "output_text" else part["type"], str(part.get("text") or ""))
        for part in content
    ]


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

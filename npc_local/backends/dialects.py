"""What differs between servers of OpenAI's chat protocol, as data.

Both take the schema as a strict `response_format` of type json_schema, so that is no difference.
Other servers on this machine (llama.cpp, SGLang, Ollama) speak as vLLM does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# A grammar that ends a list at its bound would make a model that ran away look like an answer.
_LONGEST = frozenset({"maxItems"})
# OpenAI does not take the others for every model; vLLM's grammar keeps to them.
_BOUNDS = _LONGEST | {"minItems", "minLength", "minimum", "maximum"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How requests are worded for one kind of server.

    `max_tokens` is the name of that field. `fixed_temperature` matches the models that refuse the
    field temperature. `withheld` are schema keywords that are not sent, only checked here.
    `image` are further fields of an image.
    """

    max_tokens: str
    sends_seed: bool = True
    fixed_temperature: re.Pattern[str] | None = None
    withheld: frozenset[str] = _LONGEST
    image: Mapping[str, Any] = field(default_factory=dict)


DIALECTS = {
    "vllm": Dialect(max_tokens="max_tokens"),
    "openai": Dialect(
        max_tokens="max_completion_tokens",
        fixed_temperature=re.compile(r"(o\d|gpt-5)"),  # reasoning models answer 400 to it
        withheld=_BOUNDS,
        image={"detail": "high"},  # objects are counted: no thumbnails
    ),
}

"""What is refused of an image: its texts before it is made, its picture afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from npc_local.core.errors import ConfigError, GeneratorError, PromptError
from npc_local.core.records import Shot
from npc_local.generator.call_settings import default_of
from npc_local.generator.family import Family, Pipeline

if TYPE_CHECKING:
    import numpy as np


def check_texts(pipe: Pipeline, family: Family, arguments: Mapping[str, Any], shot: Shot) -> None:
    """Refuse texts that would be cut short, and a negative that cancels its prompt.

    Args:
        pipe: what will read them.
        family: which of its parts counts the tokens, and how many it reads.
        arguments: of the pipeline call.
        shot: the texts.

    Raises:
        PromptError: one is too long, or the negative is the prompt.
    """
    if shot.negative is not None and shot.negative.strip() == shot.prompt.strip():
        raise PromptError(
            f"the negative prompt is the prompt itself, which it would cancel: "
            f"{shot.negative[:60]!r}"
        )
    tokenizer = getattr(pipe, family.tokenizer, None)
    limit = arguments.get("max_sequence_length", family.reads)
    if limit is None:
        limit = default_of(pipe, "max_sequence_length")
    if tokenizer is None and getattr(pipe, "tokenizer", None) is not None:
        # Stable Diffusion 3.5 without its T5: CLIP is all that reads.
        tokenizer = pipe.tokenizer
        limit = tokenizer.model_max_length
    if tokenizer is None or limit is None:
        return
    limit -= family.template_tokens
    own = " beside its own template" if family.template_tokens else ""
    # A learned embedding of several vectors is one word of the text, but as many tokens.
    spelt_out = getattr(pipe, "maybe_convert_prompt", lambda text, _: text)
    for kind, text in (("prompt", shot.prompt), ("negative prompt", shot.negative or "")):
        length = len(tokenizer(spelt_out(text, tokenizer)).input_ids)
        if length > limit:
            raise PromptError(
                f"the {kind} is {length} tokens long, the generator reads {max(limit, 0)}"
                f"{own} (max_sequence_length); shorten it: {text[:60]!r}..."
            )


def check_size(pixels: np.ndarray[Any, Any], family: Family, arguments: Mapping[str, Any]) -> None:
    """Refuse a size that the pipeline changes of its own accord, as HiDream's does.

    Raises:
        ConfigError: `pixels`, (H, W, C), are not as many as the call's arguments ask for.
    """
    height, width = arguments.get("height"), arguments.get("width")
    made = pixels.shape[:2]
    if height is not None and width is not None and (height, width) != made:
        raise ConfigError(
            f"size {width} x {height}: {family.name} makes {made[1]} x {made[0]} of it; "
            "ask for a size that it makes"
        )


def check_picture(pixels: np.ndarray[Any, Any], dtype: str) -> None:
    """Refuse a picture that is not a number somewhere, or black everywhere.

    Args:
        pixels: (H, W, 3) floats.
        dtype: what it was computed in.

    Raises:
        GeneratorError: it is.
    """
    import numpy as np

    for fault, is_so in (
        ("pixels that are not numbers", not np.isfinite(pixels).all()),
        ("an all-black image", not pixels.any()),
    ):
        if is_so:
            raise GeneratorError(
                f"the model made {fault} in {dtype}: its values overflowed or its weights are "
                "damaged; try dtype bfloat16 or float32, or copy the model again"
            )

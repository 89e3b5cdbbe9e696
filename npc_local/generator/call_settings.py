"""What a pipeline is called with for every image, looked at once, before the first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from npc_local.core.errors import ConfigError
from npc_local.core.numbers import whole_number
from npc_local.generator.early_negative.call_arguments import hands_on, parameters
from npc_local.generator.family import Family, Pipeline

# Arguments of a pipeline call that are set for each image, or that would change what comes back.
_OURS = re.compile(
    r"(negative_)?(pooled_)?prompt(_\d|_embeds.*|_attention_mask.*)?|generator|latents"
    r"|num_images_per_prompt|output_type|return_dict|callback.*"
)


def checked_arguments(
    family: Family, pipe: Pipeline, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Return call arguments as they are passed.

    Raises:
        ConfigError: the pipeline does not take one, it is set for each image, or a size is none
            that the model makes.
    """
    takes = parameters(type(pipe))
    takes_more = hands_on(type(pipe), family.pipeline)
    for name in arguments:
        if _OURS.fullmatch(name):
            raise ConfigError(f"argument {name!r} is set for each image; leave it out")
        if name == family.scale:
            raise ConfigError(f"argument {name!r}: give the scale as true_cfg_scale")
        if name not in takes and not takes_more:
            raise ConfigError(f"{type(pipe).__name__} takes no argument {name!r}")
    checked = dict(arguments)
    multiple = getattr(pipe, "vae_scale_factor", 8) * family.size_multiple
    for side in ("height", "width"):
        if checked.get(side) is not None:
            checked[side] = _checked_side(side, checked[side], multiple)
    return checked


def denoising_steps(pipe: Pipeline, arguments: Mapping[str, Any]) -> int | None:
    """Return how many denoising steps a call with these arguments has, if that is known.

    Raises:
        ConfigError: num_inference_steps is no whole number.
    """
    for name in ("sigmas", "timesteps"):
        if arguments.get(name) is not None:
            return len(arguments[name])
    steps = arguments.get("num_inference_steps", default_of(pipe, "num_inference_steps"))
    return None if steps is None else whole_number("num_inference_steps", steps)


def default_scale(family: Family, pipe: Pipeline) -> float:
    """Return the true-CFG scale that the family is used with."""
    if family.default_scale is not None:
        return family.default_scale
    if family.scale == "guider":
        return float(pipe.guider.guidance_scale) if pipe.guider is not None else 3.5
    return float(default_of(pipe, family.scale)) + 1 - family.scale_off


def default_of(pipe: Pipeline, argument: str) -> Any:
    """Return the default of a pipeline call's argument; None if it has no such argument."""
    parameter = parameters(type(pipe)).get(argument)
    return None if parameter is None else parameter.default


def _checked_side(side: str, value: object, multiple: int) -> int:
    """Return a side of an image in pixels, or refuse one that the model cannot make."""
    try:
        size = whole_number(side, value)
    except ConfigError:
        size = 0
    if size <= 0 or size % multiple:
        raise ConfigError(f"{side} = {value!r}: must be a multiple of {multiple} for this model")
    return size

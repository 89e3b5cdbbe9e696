"""What a pipeline's null prompt looks like to its denoiser.

Leaves out: when to answer with it (`guided_call`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from npc_local.core.errors import ConfigError
from npc_local.generator.early_negative.call_arguments import CallArguments, parameters
from npc_local.generator.early_negative.guided_call import LIVE, bypassed, input_names
from npc_local.generator.early_negative.patching import standing_before
from npc_local.generator.family import Family, Pipeline, denoiser_of
from npc_local.generator.random_numbers import random_numbers_kept

if TYPE_CHECKING:
    from torch import Generator


def null_inputs(
    pipe: Pipeline,
    family: Family,
    stock: Callable[..., Any],
    given: CallArguments,
    null: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the denoiser's inputs for the null prompt, as the pipeline itself makes them.

    They come from a call with the null prompt that ends where its first unconditional
    prediction would be computed; no denoiser forward is spent and no random number drawn.

    Args:
        pipe: of this family.
        family: whose null prompt it is.
        stock: the pipeline's own call.
        given: the arguments of the call that the null prompt is for.
        null: call arguments that give the null prompt; None takes the family's.

    Raises:
        ConfigError: this null prompt gives no unconditional prediction, or cannot be given.
    """
    arguments = given.named
    trial = {name: value for name, value in arguments.items() if not _is_negative(name)}
    trial |= _null_arguments(family, arguments) if null is None else null
    # Lists of its own: Z-Image writes its chat template into the caller's list of prompts.
    trial = {name: part[:] if isinstance(part, list) else part for name, part in trial.items()}
    if arguments.get("generator") is not None:
        trial["generator"] = _copied(arguments["generator"])
    args, kwargs = given.with_named(trial, parameters(type(pipe)))
    answer = _NullTrial(family, input_names(denoiser_of(pipe)))
    try:
        with (
            _quiet(pipe),
            random_numbers_kept(pipe),
            standing_before(denoiser_of(pipe), answer),
        ):
            stock(*args, **kwargs)
    except _NullFound:
        return answer.inputs
    except ValueError as error:
        if null is not None or not any("prompt_embeds" in name for name in arguments):
            raise
        raise ConfigError(
            f"the prompt is given as embeddings, and {type(pipe).__name__} then takes no "
            f"null prompt as text ({error}); give early_negative its embeddings as `null`"
        ) from error
    if not answer.requested:
        raise bypassed(pipe)
    raise ConfigError(
        f"with its null prompt ({trial.get('negative_prompt')!r}) {type(pipe).__name__} "
        "does not guide at all; give early_negative the call's arguments for one as `null`"
    )


@dataclass
class _NullTrial:
    """Stands in for the denoiser in a call that ends with its first unconditional prediction.

    Attributes:
        names: of the denoiser's inputs, in order.
        requested: whether any prediction was asked for.
        inputs: what the null prompt looks like to the denoiser, once the call has ended.
    """

    family: Family
    names: list[str]
    inputs: dict[str, Any] = field(default_factory=dict)
    requested: bool = False

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """Answer the conditional prediction with zeros, and end the call at the other one.

        Raises:
            _NullFound: this is the other one.
        """
        import torch

        inputs |= dict(zip(self.names, args, strict=False))
        if self.family.guides == "two calls" and not self.requested:
            self.requested = True
            return (torch.zeros_like(inputs["hidden_states"]),)
        self.inputs = {name: value for name, value in inputs.items() if name not in LIVE}
        raise _NullFound


class _NullFound(Exception):
    """Ends the call that shows what the null prompt looks like to the denoiser."""


@contextmanager
def _quiet(pipe: Pipeline) -> Iterator[None]:
    """Show no progress bar."""
    shown = getattr(pipe, "_progress_bar_config", {})  # there once it has been set
    pipe._progress_bar_config = {**shown, "disable": True}
    try:
        yield
    finally:
        pipe._progress_bar_config = shown


def _is_negative(name: str) -> bool:
    """Whether a call argument carries the negative prompt, as text or embeddings."""
    return name.startswith(("negative_prompt", "negative_pooled_prompt"))


def _null_arguments(family: Family, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the call arguments of the family's null prompt, one text a prompt."""
    if family.null is None:
        return {}
    prompt = arguments.get("prompt")
    if isinstance(prompt, str):
        return {"negative_prompt": family.null}
    if prompt is None:
        # Not prompt_embeds_llama3, HiDream's, which has its layers first: it comes last by name.
        embeds = [
            name
            for name, value in arguments.items()
            if name.startswith(("pooled_prompt", "prompt_embeds")) and value is not None
        ]
        count = len(arguments[min(embeds)]) if embeds else 1
        return {"negative_prompt": [family.null] * count if count > 1 else family.null}
    return {"negative_prompt": [family.null] * len(prompt)}


def _copied(generator: Generator | list[Generator]) -> Generator | list[Generator]:
    """Return random generators that will draw the same numbers, leaving the originals alone."""
    import torch

    if isinstance(generator, list):
        return [_copied(each) for each in generator]  # type: ignore[misc]
    twin = torch.Generator(generator.device)
    twin.set_state(generator.get_state())
    return twin

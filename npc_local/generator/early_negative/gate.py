"""The negative prompt in the first denoising steps only, on an unchanged diffusers pipeline.

The method lets a negative prompt act in the first steps and not later (paper, section 3: later
steps hardly react to it). A stock pipeline applies it in every step. Instead of a copy of each
pipeline's loop, the gate stands between the pipeline and its denoiser: the pipeline keeps asking
for both predictions in every step, and from step `steps` on the negative one is answered with
something else (`guided_call`). Leaves out: what differs between models (`families`), loading
pipelines (`loading`) and what to call them with (`sampling`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from npc_local.core.errors import ConfigError
from npc_local.generator.early_negative.guided_call import (
    LIVE,
    FirstPrediction,
    GuidedCall,
    input_names,
    remedy,
)
from npc_local.generator.early_negative.patching import forward_slot, standing_in
from npc_local.generator.early_negative.text_memo import TextMemo
from npc_local.generator.families import family_of, refuse_distilled
from npc_local.generator.family import After, Family, Pipeline, denoiser_of

if TYPE_CHECKING:
    from torch import Generator


def check_true_cfg_scale(scale: float) -> None:
    """Refuse a true-CFG scale at which diffusers would ignore the negative prompt.

    Raises:
        ConfigError: `scale` is not greater than 1.
    """
    if not scale > 1:
        raise ConfigError(
            f"true_cfg_scale = {scale} would ignore the negative prompt; it must be greater than 1"
        )


@dataclass
class Gate:
    """What stands between one pipeline and its denoiser while `early_negative` is active.

    Attributes:
        confines: False lets the pipeline be, and only counts and tells.
        first: keeps the conditional prediction of step 0, and answers with it if it has one.
        on_step: is told after each step (steps done, steps in all).
        on_late: is told when the early steps are over.
        memo: keeps what the text encoders answer from call to call; None: within a call only.
        forwards: predictions really computed so far, over all calls of the pipeline. A batch
            that holds the conditional and the unconditional half counts two.
        recalled: predictions that `first` knew already, so that they were not computed.
    """

    pipe: Pipeline
    family: Family
    steps: int
    after: After
    null: Mapping[str, Any] | None = None
    confines: bool = True
    first: FirstPrediction | None = None
    on_step: Callable[[int, int], None] | None = None
    on_late: Callable[[], None] | None = None
    memo: TextMemo | None = None
    forwards: int = 0
    recalled: int = 0
    _call: GuidedCall | None = field(default=None, init=False)

    def call(self, stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run one call of the pipeline, `stock`, with the negative confined to the first steps.

        Raises:
            ConfigError: the call ignores the negative prompt, or runs inside another one.
        """
        if self._call is not None:
            raise ConfigError("a gated pipeline cannot be called from inside its own call")
        parameters = inspect.signature(stock).parameters
        arguments = inspect.signature(stock).bind(*args, **kwargs).arguments
        null: dict[str, Any] = {}
        memo = TextMemo() if self.memo is None else self.memo
        with memo.over(self.pipe):
            if self.confines:
                _check_guided(self.pipe, self.family, arguments, parameters)
                if self.after == "null":
                    null = self._null_inputs(stock, arguments)
            # Once sampling begins, all texts are encoded.
            begun = memo.forget if self.memo is None else (lambda: None)
            self._call = GuidedCall(self, _images(arguments), null, begun)
            try:
                with self._call.attached():
                    return stock(**arguments)
            finally:
                self._call = None

    def _null_inputs(self, stock: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the denoiser's inputs for the null prompt, as the pipeline itself makes them.

        They come from a call with the null prompt that ends where its first unconditional
        prediction would be computed; no denoiser forward is spent and no random number drawn.
        """
        import torch

        denoiser = denoiser_of(self.pipe)
        names = input_names(denoiser)
        asked = 0
        found: dict[str, Any] = {}

        def forward(*args: Any, **inputs: Any) -> Any:
            nonlocal asked
            asked += 1
            inputs |= dict(zip(names, args, strict=False))
            if asked == 1 and self.family.guides == "two calls":
                return (torch.zeros_like(inputs["hidden_states"]),)
            found.update({name: value for name, value in inputs.items() if name not in LIVE})
            raise _NullFound

        trial = {name: value for name, value in arguments.items() if not _is_negative(name)}
        trial |= _null_arguments(self.family, arguments) if self.null is None else self.null
        # Lists of its own: Z-Image writes its chat template into the caller's list of prompts.
        trial = {name: part[:] if isinstance(part, list) else part for name, part in trial.items()}
        trial["generator"] = _copied(arguments.get("generator"))
        shown = self.pipe._progress_bar_config if hasattr(self.pipe, "_progress_bar_config") else {}
        device = self.pipe._execution_device  # where noise is drawn, also when offloaded
        self.pipe._progress_bar_config = {**shown, "disable": True}
        try:
            with (
                torch.random.fork_rng(
                    devices=[] if device.type == "cpu" else [device.index or 0],
                    device_type="cuda" if device.type == "cpu" else device.type,
                ),
                standing_in(denoiser, forward_slot(denoiser), forward),
            ):
                stock(**trial)
        except _NullFound:
            return found
        except ValueError as error:
            if self.null is not None or not any("prompt_embeds" in name for name in arguments):
                raise
            raise ConfigError(
                f"the prompt is given as embeddings, and {type(self.pipe).__name__} then takes no "
                f"null prompt as text ({error}); give early_negative its embeddings as `null`"
            ) from error
        finally:
            self.pipe._progress_bar_config = shown
        raise ConfigError(
            f"with its null prompt ({trial.get('negative_prompt')!r}) {type(self.pipe).__name__} "
            "does not guide at all; give early_negative the call's arguments for one as `null`"
        )


class _NullFound(Exception):
    """Ends the call that shows what the null prompt looks like to the denoiser."""


@contextmanager
def early_negative(
    pipe: Pipeline,
    steps: int = 3,
    after: After | None = None,
    *,
    null: Mapping[str, Any] | None = None,
    allow_distilled: bool = False,
) -> Iterator[Gate]:
    """Let the negative prompt of every call of `pipe` act in its first denoising steps only.

    Call the pipeline inside as always, with a negative prompt and a scale that guides. Offloading,
    caches and compilation of the pipeline stay as they are. Not thread-safe, as pipelines are not.

    Args:
        pipe: a pipeline of one of `families.FAMILIES`; restored on exit, whatever happens.
        steps: denoising steps that the negative acts in. 0: none; as many as the call has
            steps, or more: the stock pipeline.
        after: the later steps. "off": no CFG, so one prediction a step (the paper's FLUX.1-dev
            runs). "null": CFG against the null prompt, for models whose images are made with CFG
            throughout. None: as the family's makers sample.
        null: call arguments that give the null prompt, such as {"negative_prompt": "blurry"} or
            embeddings; None takes the one of the family's baseline.
        allow_distilled: go on with a checkpoint that looks distilled.

    Yields:
        The gate; its `forwards` counts the predictions really computed.

    Raises:
        ConfigError: the pipeline is of a class that cannot take a negative or is unknown, is
            distilled, or is gated already; an argument is out of range; a call inside would
            ignore its negative prompt.
    """
    family = family_of(type(pipe))
    if not isinstance(steps, int) or steps < 0:
        raise ConfigError(f"steps = {steps!r} must be a whole number, 0 or more")
    if after not in ("off", "null", None):
        raise ConfigError(f"after = {after!r} must be 'off', 'null' or None")
    if not allow_distilled:
        refuse_distilled(family, pipe)
    gate = Gate(pipe, family, steps, family.after if after is None else after, null)
    with gated(gate):
        yield gate


@contextmanager
def gated(gate: Gate) -> Iterator[None]:
    """Send every call of the gate's pipeline through the gate.

    Raises:
        ConfigError: a gate is there already.
    """
    pipe = gate.pipe
    stock = type(pipe)
    if issubclass(stock, _Gated):
        raise ConfigError("early_negative is already active on this pipeline; leave it first")

    @functools.wraps(stock.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self is not pipe:
            raise ConfigError(
                "this pipeline was made from one inside early_negative; make it outside"
            )
        return gate.call(functools.partial(stock.__call__, self), *args, **kwargs)

    # Python looks `pipe(...)` up on the class: a subclass of the same name takes its place.
    members = {"__call__": call, "__module__": stock.__module__, "__doc__": stock.__doc__}
    pipe.__class__ = type(stock.__name__, (_Gated, stock), members)
    try:
        yield
    finally:
        pipe.__class__ = stock


class _Gated:
    """Marks the class of a pipeline that has a gate."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Leave the gate out of copies and pickles."""
        reduced: tuple[Any, ...] = tuple(super().__reduce_ex__(protocol))
        stock = type(self).__mro__[type(self).__mro__.index(_Gated) + 1]
        return reduced[0], (stock, *reduced[1][1:]), *reduced[2:]


def _check_guided(
    pipe: Pipeline,
    family: Family,
    arguments: Mapping[str, Any],
    parameters: Mapping[str, inspect.Parameter],
) -> None:
    """Refuse a call that diffusers would answer without looking at the negative prompt."""
    # Not negative_prompt_2 and the like alone: Stable Diffusion XL would put zeros in its place.
    if not any(
        (name == "negative_prompt" or name.startswith("negative_prompt_embeds"))
        and value is not None
        for name, value in arguments.items()
    ):
        raise ConfigError(f"inside early_negative a negative prompt is needed; {remedy(family)}")
    if family.scale == "guider":
        if pipe.guider is None or not pipe.guider._enabled:
            raise ConfigError(f"this {family.name} has no active guider; use {family.undistilled}")
        scale = pipe.guider.guidance_scale
    else:
        scale = arguments.get(family.scale, parameters[family.scale].default)
    if scale is None or not scale > family.scale_off:
        raise ConfigError(
            f"{family.scale} = {scale} switches guidance off in {type(pipe).__name__}, and with "
            f"it the negative prompt; it must be greater than {family.scale_off:g}"
        )


def _is_negative(name: str) -> bool:
    """Whether a call argument carries the negative prompt, as text or embeddings."""
    return name.startswith(("negative_prompt", "negative_pooled_prompt"))


def _images(arguments: Mapping[str, Any]) -> int | None:
    """Return how many images a call makes; None if its prompt is given as embeddings."""
    prompt = arguments.get("prompt")
    if prompt is None:
        return None
    prompts = 1 if isinstance(prompt, str) else len(prompt)
    return prompts * int(arguments.get("num_images_per_prompt") or 1)


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


def _copied(generator: Generator | list[Generator] | None) -> Generator | list[Generator] | None:
    """Return random generators that will draw the same numbers, leaving the originals alone."""
    import torch

    if generator is None:
        return None
    if isinstance(generator, list):
        return [_copied(one) for one in generator]  # type: ignore[misc]
    twin = torch.Generator(generator.device)
    twin.set_state(generator.get_state())
    return twin

"""The negative prompt in the first denoising steps only, on an unchanged diffusers pipeline.

The method lets a negative prompt act in the first steps and not later (paper, section 3: later
steps hardly react to it; InvokeAI calls such a limit cfg_scale_end_step). A stock pipeline applies
it in every step. Instead of a copy of each pipeline's loop, the gate stands between the pipeline
and its denoiser: the pipeline keeps asking for both predictions in every step, and from step
`negative_steps` on the negative one is answered with something else (`guided_call`). What it relies
on inside pipelines was read and tested with diffusers 0.42.1.

Leaves out: what differs between models (`families`), loading pipelines (`loading`) and what to call
them with (`pipeline_generator`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from npc_local.core.errors import ConfigError
from npc_local.core.numbers import whole_number
from npc_local.generator.early_negative.call_arguments import CallArguments
from npc_local.generator.early_negative.guided_call import (
    GuidedCall,
    Terms,
    remedy,
)
from npc_local.generator.early_negative.null_prompt import null_inputs
from npc_local.generator.early_negative.patching import Marked, with_call
from npc_local.generator.early_negative.text_memo import TextMemo
from npc_local.generator.early_negative.turns import turn
from npc_local.generator.families import family_of, refuse_distilled
from npc_local.generator.family import After, Family, Pipeline, denoiser_of

if TYPE_CHECKING:
    pass


def check_true_cfg_scale(scale: float) -> None:
    """Refuse a true-CFG scale at which diffusers would ignore the negative prompt.

    Raises:
        ConfigError: `scale` is not greater than 1.
    """
    if not scale > 1:
        raise ConfigError(
            f"true_cfg_scale = {scale} would ignore the negative prompt; it must be greater than 1"
        )


@dataclass(kw_only=True)
class Gate(Terms):
    """What stands between one pipeline and its denoiser while `early_negative` is active.

    Attributes:
        null: call arguments that give the null prompt; None takes the family's.
        memo: keeps what the text encoders answer from call to call; None: within a call only.
    """

    null: Mapping[str, Any] | None = None
    memo: TextMemo | None = None

    def call(self, stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run one call of the pipeline, `stock`, with the negative confined to the first steps.

        A call from another thread waits until this one is over.

        Raises:
            ConfigError: the call ignores the negative prompt, gets past the gate, or runs inside
                another one.
        """
        with (
            turn(self, "a gated pipeline cannot be called from inside its own call"),
            turn(
                denoiser_of(self.pipe),
                "a pipeline that shares its denoiser with this one is in the middle of a call; "
                "let it end first",
            ),
        ):
            return self._call(stock, CallArguments.of(type(self.pipe), args, kwargs))

    def _call(self, stock: Callable[..., Any], given: CallArguments) -> Any:
        null: dict[str, Any] = {}
        memo = TextMemo() if self.memo is None else self.memo
        with memo.over(self.pipe):
            if self.confines:
                _check_guided(self.pipe, self.family, given.named)
                if self.after == "null":
                    null = null_inputs(self.pipe, self.family, stock, given, self.null)
            # Once sampling begins, all texts are encoded.
            begun = memo.forget if self.memo is None else (lambda: None)
            with GuidedCall(self, _images(given.named), null, begun).attached():
                return stock(*given.args, **given.kwargs)


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
    caches, adapters and compilation of the pipeline stay as they are. Calls from several threads
    wait for each other, and so does a second `early_negative` on the same pipeline.

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
            distilled, or is gated already by this thread; an argument is out of range; a call
            inside would ignore its negative prompt, or gets past the gate.
    """
    family = family_of(type(pipe))
    negative_steps = whole_number("steps", steps)
    if negative_steps < 0:
        raise ConfigError(f"steps = {steps!r} must be a whole number, 0 or more")
    if after not in ("off", "null", None):
        raise ConfigError(f"after = {after!r} must be 'off', 'null' or None")
    if not allow_distilled:
        refuse_distilled(family, pipe)
    gate = Gate(
        pipe=pipe,
        family=family,
        negative_steps=negative_steps,
        after=family.after if after is None else after,
        null=null,
    )
    with gated(gate):
        yield gate


@contextmanager
def gated(gate: Gate) -> Iterator[None]:
    """Send every call of the gate's pipeline through the gate; another thread waits for its turn.

    Raises:
        ConfigError: this thread has a gate there already.
    """
    pipe = gate.pipe
    refusal = "early_negative is already active on this pipeline; leave it first"
    with turn(pipe, refusal):
        stock = type(pipe)
        if issubclass(stock, Marked):
            raise ConfigError(refusal)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self is not pipe:
                raise ConfigError(
                    "this pipeline was made from one inside early_negative; make it outside"
                )
            return gate.call(functools.partial(stock.__call__, self), *args, **kwargs)

        pipe.__class__ = with_call(stock, call)
        try:
            yield
        finally:
            pipe.__class__ = stock


def _check_guided(pipe: Pipeline, family: Family, arguments: Mapping[str, Any]) -> None:
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
    elif family.scale in arguments:
        scale = arguments[family.scale]
    else:
        # A subclass that hands its arguments on may add a scale; the first step shows it.
        own = inspect.signature(type(pipe).__call__).parameters.get(family.scale)
        if own is None:
            return
        scale = own.default
    if scale is None or not scale > family.scale_off:
        raise ConfigError(
            f"{family.scale} = {scale} switches guidance off in {type(pipe).__name__}, and with "
            f"it the negative prompt; it must be greater than {family.scale_off:g}"
        )


def _images(arguments: Mapping[str, Any]) -> int | None:
    """Return how many images a call makes; None if its prompt is given as embeddings."""
    prompt = arguments.get("prompt")
    if prompt is None:
        return None
    prompts = 1 if isinstance(prompt, str) else len(prompt)
    return prompts * int(arguments.get("num_images_per_prompt") or 1)

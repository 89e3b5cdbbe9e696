"""The negative prompt in the first denoising steps only, on an unchanged diffusers pipeline.

The method lets a negative prompt act in the first steps and not later (paper, section 3: later
steps hardly react to it). A stock pipeline applies it in every step. Instead of a copy of each
pipeline's loop, this module stands between the pipeline and its denoiser: the pipeline keeps
asking for both predictions in every step, and from step `steps` on the negative one is answered
with something else. Leaves out: what differs between models (`families`), loading pipelines and
calling them (`generator`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from npc_local.diffusion.families import (
    After,
    Family,
    Pipeline,
    denoiser_of,
    family_of,
    refuse_distilled,
)
from npc_local.diffusion.patching import forward_slot, standing_in
from npc_local.diffusion.text_memo import TextMemo
from npc_local.errors import ConfigError

if TYPE_CHECKING:
    from torch import Generator, Tensor

# What a denoiser is asked anew in each step; all its other inputs are the same in every step.
_LIVE = frozenset({"hidden_states", "sample", "x", "timestep", "timesteps", "t", "timestep_r"})


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
class FirstPrediction:
    """The conditional prediction of step 0: the same for all negatives of one prompt and seed."""

    value: Any = None


@dataclass
class Gate:
    """What stands between one pipeline and its denoiser while `early_negative` is active.

    Attributes:
        forwards: predictions really computed so far, over all calls of the pipeline. A batch
            that holds the conditional and the unconditional half counts two.
    """

    pipe: Pipeline
    family: Family
    steps: int
    after: After
    null: Mapping[str, Any] | None = None
    first: FirstPrediction | None = None
    guided: bool = True
    forwards: int = 0
    _call: _Call | None = field(default=None, init=False)

    def call(self, stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run one call of the pipeline, `stock`, with the negative confined to the first steps.

        Raises:
            ConfigError: the call ignores the negative prompt, or runs inside another one.
        """
        if self._call is not None:
            raise ConfigError("a gated pipeline cannot be called from inside its own call")
        parameters = inspect.signature(stock).parameters
        arguments = dict(zip(parameters, args, strict=False)) | kwargs
        null: dict[str, Any] = {}
        with ExitStack() as stack:
            if self.guided:
                _check_guided(self.pipe, self.family, arguments, parameters)
                if self.after == "null":
                    stack.enter_context(TextMemo().over(self.pipe))
                    null = self._null_inputs(stock, arguments)
            self._call = _Call(self, _images(arguments), null)
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
            found.update({name: value for name, value in inputs.items() if name not in _LIVE})
            raise _NullFound

        trial = {name: value for name, value in arguments.items() if not _is_negative(name)}
        trial |= _null_arguments(self.family, arguments) if self.null is None else self.null
        trial["generator"] = _copied(arguments.get("generator"))
        shown = self.pipe._progress_bar_config if hasattr(self.pipe, "_progress_bar_config") else {}
        devices = [self.pipe.device] if self.pipe.device.type == "cuda" else []
        self.pipe._progress_bar_config = {**shown, "disable": True}
        try:
            with (
                torch.random.fork_rng(devices=devices),
                standing_in(denoiser, forward_slot(denoiser), forward),
            ):
                stock(**trial)
        except _NullFound:
            return found
        finally:
            self.pipe._progress_bar_config = shown
        raise ConfigError(
            f"with its null prompt ({trial.get('negative_prompt')!r}) {type(self.pipe).__name__} "
            "does not guide at all; give early_negative the call's arguments for one as `null`"
        )


@dataclass
class _Call:
    """One pipeline call under a gate: which step it is at, and what it has asked for in it."""

    gate: Gate
    images: int | None
    null: dict[str, Any]
    step: int = 0
    asked: int = 0
    conditional: Any = None
    names: list[str] = field(default_factory=list)
    compute: Callable[..., Any] = field(default=lambda: None)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Stand in for the denoiser's forward and listen to the scheduler's steps."""
        pipe, family = self.gate.pipe, self.gate.family
        denoiser = denoiser_of(pipe)
        self.names = input_names(denoiser)
        answer = self.answer_one if family.guides == "two calls" else self.answer_batch
        if not self.gate.guided:
            answer = self.answer_plain

        def step(*args: Any, **kwargs: Any) -> Any:
            self.end_step()
            return schedule(*args, **kwargs)

        with (
            standing_in(denoiser, forward_slot(denoiser), answer) as self.compute,
            standing_in(pipe.scheduler, "step", step) as schedule,
        ):
            yield

    @property
    def late(self) -> bool:
        """Whether the negative's steps are over."""
        return self.step >= self.gate.steps

    def end_step(self) -> None:
        """Go on to the next step.

        Raises:
            ConfigError: the negative prediction of an early step was never asked for.
        """
        if self.gate.guided and self.asked < 2 and (self.step == 0 or not self.late):
            raise ConfigError(
                f"the pipeline ignored the negative prompt in denoising step {self.step}: it did "
                f"not guide there; {_remedy(self.gate.family)}"
            )
        self.step += 1
        self.asked = 0
        self.conditional = None

    def answer_plain(self, *args: Any, **inputs: Any) -> Any:
        """Answer in a call that does not guide."""
        self.asked += 1
        return self._first(args, inputs) if self.asked == 1 else self._computed(args, inputs)

    def answer_one(self, *args: Any, **inputs: Any) -> Any:
        """Answer one prediction of a family that asks for two in each step, conditional first.

        Replaying the conditional output p as the unconditional one makes n + s * (p - n), and
        p + s * (p - n) too, equal to p bit for bit, whatever the scale s.
        """
        self.asked += 1
        if self.asked == 1:
            self.conditional = self._first(args, inputs)
            return self.conditional
        if not self.late:
            return self._computed(args, inputs)
        if self.gate.after == "null":
            return self._computed((), self._with_null(args, inputs))
        _forget_momentum(self.gate.pipe)
        return self.conditional

    def answer_batch(self, *args: Any, **inputs: Any) -> Any:
        """Answer both predictions of a family that asks for them in one batch."""
        named = dict(zip(self.names, args, strict=False)) | inputs
        rows = len(next(named[name] for name in self.names if name in _LIVE and name in named))
        if self.images is None:  # given as embeddings only: step 0 is guided, so twice the images
            self.images = rows // 2
        if rows != 2 * self.images:
            self.asked = 1
            return self._computed(args, inputs)
        self.asked = 2
        if not self.late:
            return self._computed(args, inputs, predictions=2)
        if self.gate.after == "null":
            return self._computed((), self._with_null(args, inputs), predictions=2)
        family = self.gate.family
        half = slice(self.images) if family.conditional_first else slice(self.images, None)
        conditional = {
            name: _rows(value, half, rows, family.batch_dims.get(name, 0))
            for name, value in named.items()
        }
        return _doubled(self._computed((), conditional))

    def _first(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
        """Return the conditional prediction; that of step 0 from memory, if it is known."""
        first = self.gate.first
        if first is None or self.step > 0:
            return self._computed(args, inputs)
        if first.value is None:
            first.value = self._computed(args, inputs)
        return first.value

    def _computed(self, args: tuple[Any, ...], inputs: dict[str, Any], predictions: int = 1) -> Any:
        output = self.compute(*args, **inputs)
        self.gate.forwards += predictions
        return output

    def _with_null(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> dict[str, Any]:
        """Return this step's inputs with the null prompt in the negative's place."""
        named = dict(zip(self.names, args, strict=False)) | inputs
        return self.null | {name: value for name, value in named.items() if name in _LIVE}


class _NullFound(Exception):  # noqa: N818 - a signal, not an error
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
    if steps < 0:
        raise ConfigError(f"steps = {steps} must be 0 or more")
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


def input_names(denoiser: Any) -> list[str]:
    """Return the names of a denoiser's inputs, in the order of its forward."""
    model = getattr(denoiser, "_orig_mod", denoiser)  # torch.compile wraps
    return list(inspect.signature(type(model).forward).parameters)[1:]


def _check_guided(
    pipe: Pipeline,
    family: Family,
    arguments: Mapping[str, Any],
    parameters: Mapping[str, inspect.Parameter],
) -> None:
    """Refuse a call that diffusers would answer without looking at the negative prompt."""
    if not any(_is_negative(name) and arguments[name] is not None for name in arguments):
        raise ConfigError(f"inside early_negative a negative prompt is needed; {_remedy(family)}")
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


def _remedy(family: Family) -> str:
    """Say how a call of this family takes a negative prompt."""
    negative = (
        "negative_prompt (or its embeddings)"
        if family.takes_text
        else "negative_prompt_embeds, from pipe.encode_prompt(negative)[0]"
    )
    scale = "pipe.guider.guidance_scale" if family.scale == "guider" else family.scale
    return f"call {family.pipeline} with {negative} and {scale} greater than {family.scale_off:g}"


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
        embeds = [name for name in arguments if name.startswith("prompt_embeds")]
        count = len(arguments[embeds[0]])
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


def _forget_momentum(pipe: Pipeline) -> None:
    """Keep a guider's memory of earlier guidance out of steps that are to have none."""
    for name in ("guider", "ocr_guider"):
        if getattr(getattr(pipe, name, None), "momentum_buffer", None) is not None:
            getattr(pipe, name).momentum_buffer = None


def _rows(value: Any, half: slice, rows: int, dimension: int) -> Any:
    """Return the given rows of everything in `value` that has a row for each of `rows`."""
    import torch

    if isinstance(value, torch.Tensor):
        if value.ndim <= dimension or value.shape[dimension] != rows:
            return value
        return value[(slice(None),) * dimension + (half,)]
    if isinstance(value, dict):
        return {key: _rows(part, half, rows, dimension) for key, part in value.items()}
    if isinstance(value, list | tuple) and len(value) == rows:
        return value[half]
    return value


def _doubled(output: Any) -> Any:
    """Return a denoiser's output with each row twice, as if both halves had been computed."""
    import torch

    if isinstance(output, torch.Tensor):
        return torch.cat([output, output])
    if isinstance(output, list):
        return output + output
    return tuple(_doubled(part) for part in output)

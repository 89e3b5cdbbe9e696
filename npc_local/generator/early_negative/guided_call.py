"""One pipeline call under a gate, step by step: which prediction is asked for, and the answer.

Knows when the negative's steps are over and what to answer then, and checks after every denoising
step that nothing has got past it; what the null prompt looks like and which calls are let through
is the gate's business.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from npc_local.core.errors import ConfigError
from npc_local.generator.early_negative.patching import StandIn, standing_before
from npc_local.generator.family import After, Family, Pipeline, denoiser_of

# What a denoiser is asked anew in each step; all its other inputs are the same in every step.
LIVE = frozenset({"hidden_states", "sample", "x", "timestep", "timesteps", "t", "timestep_r"})


@dataclass
class FirstPrediction:
    """The conditional prediction of step 0: the same for all negatives of one prompt and seed."""

    value: Any = None


@dataclass(kw_only=True)
class Terms:
    """What is agreed for the calls of one pipeline, and the tally of what they computed.

    Attributes:
        negative_steps: denoising steps that the negative acts in.
        after: what the later steps are guided against.
        confines: False lets the pipeline be, and only counts and tells.
        first: keeps the conditional prediction of step 0, and answers with it if it has one.
        on_step: is told after each denoising step (steps done, steps in all).
        on_late: is told when the early steps are over.
        forwards: predictions really computed so far, over all calls of the pipeline. A batch
            that holds the conditional and the unconditional half counts two.
        recalled: predictions that `first` knew already, so that they were not computed.
    """

    pipe: Pipeline
    family: Family
    negative_steps: int
    after: After
    confines: bool = True
    first: FirstPrediction | None = None
    on_step: Callable[[int, int], None] | None = None
    on_late: Callable[[], None] | None = None
    forwards: int = 0
    recalled: int = 0


@dataclass
class GuidedCall:
    """One pipeline call: which denoising step it is at, and what it has asked for in it.

    Attributes:
        images: how many it makes; None: not known before the first prediction.
        null: the denoiser's inputs for the null prompt.
        begun: is told when sampling begins, so when all texts are encoded.
    """

    terms: Terms
    images: int | None
    null: dict[str, Any]
    begun: Callable[[], None]
    step: int = field(default=0, init=False)
    requested: int = field(default=0, init=False)  # predictions, in this step
    conditional: Any = field(default=None, init=False)
    names: list[str] = field(default_factory=list, init=False)
    stand_in: StandIn = field(init=False)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Stand before the denoiser and listen to the scheduler's steps.

        Raises:
            ConfigError: the call got past it.
        """
        pipe, family = self.terms.pipe, self.terms.family
        denoiser = denoiser_of(pipe)
        self.names = input_names(denoiser)
        if not self.terms.confines:
            answer = self.pass_on
        elif family.guides == "two calls":
            answer = self.answer_one
        else:
            answer = self.answer_both

        def forward(*args: Any, **inputs: Any) -> Any:
            if self.step == self.requested == 0:
                self.begun()
            return answer(*args, **inputs)

        def step(*args: Any, **kwargs: Any) -> Any:
            self.end_step()
            return schedule.compute(*args, **kwargs)

        with (
            standing_before(denoiser, forward) as self.stand_in,
            standing_before(pipe.scheduler, step, "step") as schedule,
        ):
            yield
            if self.step == 0:
                raise bypassed(pipe)

    @property
    def late(self) -> bool:
        """Whether the negative's steps are over."""
        return self.step >= self.terms.negative_steps

    def end_step(self) -> None:
        """Go on to the next denoising step.

        Where the pipeline itself stops guiding early (cfg_truncation, cfg_trunc_ratio), that holds.

        Raises:
            ConfigError: the negative prediction was not asked for in the first step, or this step's
                predictions were not asked for here.
        """
        terms = self.terms
        there = self.stand_in.is_there and denoiser_of(terms.pipe) is self.stand_in.owner
        if self.requested == 0 or not there:
            raise bypassed(terms.pipe, self.step + 1)
        if terms.confines and self.step == 0 and self.requested < 2:
            raise ConfigError(
                "the pipeline ignored the negative prompt: it did not guide in its first denoising "
                f"step; {remedy(terms.family)}"
            )
        self.step += 1
        self.requested = 0
        self.conditional = None
        if terms.on_step is not None:
            steps = getattr(terms.pipe, "num_timesteps", None)
            terms.on_step(self.step, steps or len(terms.pipe.scheduler.timesteps))
        if terms.on_late is not None and self.step == terms.negative_steps:
            terms.on_late()

    def pass_on(self, *args: Any, **inputs: Any) -> Any:
        """Answer as the denoiser does."""
        self.requested += 1
        if self.terms.family.guides == "two calls":
            return (
                self._first(args, inputs) if self.requested == 1 else self._computed(args, inputs)
            )
        doubled = self.images is not None and self._row_count(args, inputs) == 2 * self.images
        return self._computed(args, inputs, predictions=2 if doubled else 1)

    def answer_one(self, *args: Any, **inputs: Any) -> Any:
        """Answer one prediction of a family that asks for two in each step, conditional first.

        Replaying the conditional output p as the unconditional one makes n + s * (p - n), and
        p + s * (p - n) too, equal to p bit for bit, whatever the scale s. (What a pipeline may do
        to it afterwards, as with guidance_rescale, may round.)
        """
        self.requested += 1
        if self.requested == 1:
            self.conditional = self._first(args, inputs)
            return self.conditional
        if self.requested > 2:
            raise _another_pipeline()
        if not self.late:
            return self._computed(args, inputs)
        if self.terms.after == "null":
            return self._computed((), self._with_null(args, inputs))
        _forget_momentum(self.terms.pipe)
        return self.conditional

    def answer_both(self, *args: Any, **inputs: Any) -> Any:
        """Answer both predictions of a family that asks for them in one batch."""
        rows = self._row_count(args, inputs)
        if self.images is None:  # given as embeddings only: step 0 is guided, so twice the images
            self.images = rows // 2
        if rows != 2 * self.images:
            # Guidance is off in this step, or this is an extra call, as skip-layer guidance makes.
            self.requested = max(self.requested, 1)
            return self._computed(args, inputs)
        if self.requested == 2:
            raise _another_pipeline()
        self.requested = 2
        if not self.late:
            return self._computed(args, inputs, predictions=2)
        if self.terms.after == "null":
            return self._computed((), self._with_null(args, inputs), predictions=2)
        family = self.terms.family
        half = slice(self.images) if family.conditional_first else slice(self.images, None)
        conditional = {
            # Lists have an element a row (Z-Image's); inside dicts, one an IP-Adapter.
            name: value[half]
            if isinstance(value, list)
            else _rows(value, half, rows, family.batch_dims.get(name, 0))
            for name, value in self._named(args, inputs).items()
        }
        return _doubled(self._computed((), conditional))

    def _first(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
        """Return the conditional prediction; that of step 0 from memory, if it is known."""
        first = self.terms.first
        if first is None or self.step > 0:
            return self._computed(args, inputs)
        if first.value is None:
            first.value = self._computed(args, inputs)
        else:
            self.terms.recalled += 1
        return first.value

    def _computed(self, args: tuple[Any, ...], inputs: dict[str, Any], predictions: int = 1) -> Any:
        output = self.stand_in.compute(*args, **inputs)
        self.terms.forwards += predictions
        return output

    def _with_null(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> dict[str, Any]:
        """Return this step's inputs with the null prompt in the negative's place."""
        live = {name: part for name, part in self._named(args, inputs).items() if name in LIVE}
        named = self.null | live
        if "kv_cache_mode" in self.null:  # Qwen-Image-2.1: the first null prediction fills a cache
            self.null["kv_cache_mode"] = "cached"
        return named

    def _named(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(self.names, args, strict=False)) | inputs

    def _row_count(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> int:
        """Return how many rows the denoiser is asked for: images, or twice as many."""
        named = self._named(args, inputs)
        return len(next(named[name] for name in self.names if name in LIVE and name in named))


def bypassed(pipe: Pipeline, step: int = 1) -> ConfigError:
    """Return the refusal of a denoising step whose predictions were not all asked for here."""
    return ConfigError(
        f"step {step} of {type(pipe).__name__} got past the gate: its denoiser was replaced, or "
        "called in a way that early_negative cannot see, so the negative prompt would have acted "
        "in every step; change the pipeline (offload, compilation, adapters, wrappers) before the "
        "call and not during it"
    )


def _another_pipeline() -> ConfigError:
    """Return the refusal of a step that does not end, or of a call inside the call."""
    return ConfigError(
        "the denoiser was asked for more predictions than one step has: a pipeline that shares it "
        "was called from inside this call, or its scheduler was replaced meanwhile; let this call "
        "end first"
    )


def remedy(family: Family) -> str:
    """Say how a call of this family takes a negative prompt."""
    negative = (
        "negative_prompt (or its embeddings)"
        if family.takes_text
        else "negative_prompt_embeds, from pipe.encode_prompt(negative)[0]"
    )
    scale = "pipe.guider.guidance_scale" if family.scale == "guider" else family.scale
    return f"call {family.pipeline} with {negative} and {scale} greater than {family.scale_off:g}"


def input_names(denoiser: Any) -> list[str]:
    """Return the names of a denoiser's inputs, in the order of its forward.

    A wrapper (torch.compile's, PEFT's, a user's) may name none: then those of what it wraps.
    """
    model = getattr(denoiser, "_orig_mod", denoiser)
    for part in model.modules():
        inputs = list(inspect.signature(type(part).forward).parameters.values())[1:]
        if not any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in inputs):
            return [each.name for each in inputs]
    raise ConfigError(f"{type(denoiser).__name__} does not say what its inputs are called")


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
    if isinstance(value, list | tuple):
        return [_rows(part, half, rows, dimension) for part in value]
    return value


def _doubled(output: Any) -> Any:
    """Return a denoiser's output with each row twice, as if both halves had been computed."""
    import torch

    if isinstance(output, torch.Tensor):
        return torch.cat([output, output])
    if isinstance(output, list):
        return output + output
    return tuple(_doubled(part) for part in output)

"""What a negative prompt costs: seconds an image without one, in the first steps, in every step.

Three ways of sampling are timed on a FLUX.1 transformer with random weights, all through the real
FluxPipeline and the real gate. Only sampling is measured: prompt embeddings are random numbers made
beforehand, and the latents are not decoded. Leaves out: the models (`random_flux`), tables
(`tables`), progress (`cli.bench.gate`).
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from npc_local.bench.gate.random_flux import WAYS, Setup, Subject, Way, build, failures
from npc_local.core.errors import GeneratorError
from npc_local.generator.early_negative.gate import Gate, early_negative, gated
from npc_local.generator.families import family_of
from npc_local.generator.family import Pipeline

if TYPE_CHECKING:
    import torch

TRUE_CFG_SCALE = 1.8  # the paper's


@dataclass(frozen=True, slots=True)
class Sample:
    """One image.

    Attributes:
        latents: what the pipeline gave, packed and not decoded.
        forwards: of the transformer, counted.
        seconds: of the whole pipeline call.
        peak_bytes: the most memory that tensors held during the call, weights included; CUDA only.
    """

    latents: torch.Tensor
    forwards: int
    seconds: float
    peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class Timing:
    """One way of sampling, measured.

    Attributes:
        forwards: of the transformer in one image, counted.
        seconds: of each timed image, by round.
        peak_bytes: the most memory that tensors held in any of them; None on a CPU.
    """

    forwards: int
    seconds: tuple[float, ...]
    peak_bytes: int | None

    @property
    def median(self) -> float:
        """The median seconds an image."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class ModelTimings:
    """A model, measured in all ways; `compiled` tells whether its blocks were."""

    setup: Setup
    compiled: bool
    ways: Mapping[Way, Timing]

    def ratio(self, way: Way) -> float:
        """Return the time to that without a negative: the median of the rounds' ratios.

        Both times of a ratio are of one round, so that what slows the machine down for a while
        slows both.
        """
        pairs = zip(self.ways[way].seconds, self.ways["none"].seconds, strict=True)
        return statistics.median(seconds / base for seconds, base in pairs)

    def expected(self, way: Way) -> float:
        """Return what the ratio is when time goes into the counted forwards alone."""
        return self.ways[way].forwards / self.ways["none"].forwards

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        setup = self.setup
        return {
            "model": setup.model.name,
            "parameters": setup.parameters,
            "size": setup.size,
            "text_tokens": setup.model.text_tokens,
            "steps": setup.steps,
            "negative_steps": setup.negative_steps,
            "compiled": self.compiled,
            "ways": {
                way: {
                    "forwards": timing.forwards,
                    "seconds": list(timing.seconds),
                    "median_seconds": timing.median,
                    "ratio": self.ratio(way),
                    "expected_ratio": self.expected(way),
                    "peak_bytes": timing.peak_bytes,
                }
                for way, timing in self.ways.items()
            },
        }


def sample(
    subject: Subject,
    way: Way,
    *,
    steps: int,
    negative_steps: int,
    size: int,
    on_status: Callable[[int], None] = lambda forwards: None,
) -> Sample:
    """Make one image, always from the same noise.

    Args:
        subject: what makes it.
        way: "none": no negative. "gate": with the negative in the first steps only. "stock": in
            every step.
        steps: denoising steps.
        negative_steps: how many of them have the negative, when gated.
        size: side of the square image, in pixels.
        on_status: is given the number of forwards done since the last time, after each step.
    """
    import torch

    pipe = subject.pipe
    cuda = pipe.device.type == "cuda"
    arguments: dict[str, Any] = dict(subject.prompt)
    if way != "none":
        arguments |= {**subject.negative, "true_cfg_scale": TRUE_CFG_SCALE}
    with _counted(pipe, way, negative_steps) as gate:
        before = 0

        def on_step(done: int, of: int) -> None:
            nonlocal before
            on_status(gate.forwards - before)
            before = gate.forwards

        gate.on_step = on_step
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        start = time.perf_counter()
        latents = pipe(
            height=size,
            width=size,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            return_dict=False,
            **arguments,
        )[0]
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if cuda else None
    return Sample(latents, gate.forwards, seconds, peak)


def _counted(pipe: Pipeline, way: Way, negative_steps: int) -> AbstractContextManager[Gate]:
    """Return the gate of a way of sampling; one that only counts, unless it is "gate"."""
    if way == "gate":
        return early_negative(pipe, negative_steps, "off")
    counting = Gate(
        pipe=pipe, family=family_of(type(pipe)), negative_steps=0, after="off", confines=False
    )
    return _counting(counting)


@contextmanager
def _counting(gate: Gate) -> Iterator[Gate]:
    with gated(gate):
        yield gate


def measure(
    setup: Setup,
    *,
    compiled: bool = False,
    on_status: Callable[[str, float], None] = lambda doing, work: None,
) -> list[ModelTimings]:
    """Measure a model in all ways, in turn, so that a change of the machine's pace meets all.

    Args:
        setup: what to measure.
        compiled: measure again with the transformer's repeated blocks compiled.
        on_status: is given what is being done, and the work done since the last time.

    Raises:
        GeneratorError: out of memory, the model failed, or what it made is not finite.
    """
    name = setup.model.name
    on_status(f"{name}: making weights", 0.0)
    subject = build(setup)
    try:
        results = [_measure(setup, subject, name, on_status)]
        if compiled:
            subject.pipe.transformer.compile_repeated_blocks()
            timings = _measure(setup, subject, f"{name}, compiled", on_status)
            results.append(replace(timings, compiled=True))
    finally:
        del subject
        gc.collect()
        if setup.device == "cuda":
            import torch

            torch.cuda.empty_cache()
    return results


def _measure(
    setup: Setup, subject: Subject, name: str, on_status: Callable[[str, float], None]
) -> ModelTimings:
    """Warm up, then time every way once a round; each round begins with another way."""
    for way in WAYS:
        _checked(subject, way, setup.warm_up(), partial(on_status, f"{name}: warming up"))
    samples: dict[Way, list[Sample]] = {way: [] for way in WAYS}
    for number in range(setup.repeats):
        first = number % len(WAYS)
        for way in (*WAYS[first:], *WAYS[:first]):
            doing = f"{name}: {way}, {number + 1} of {setup.repeats}"
            samples[way].append(_checked(subject, way, setup, partial(on_status, doing)))
    ways = {
        way: Timing(
            images[0].forwards,
            tuple(image.seconds for image in images),
            max(
                (image.peak_bytes for image in images if image.peak_bytes is not None), default=None
            ),
        )
        for way, images in samples.items()
    }
    return ModelTimings(setup, False, ways)


def _checked(
    subject: Subject, way: Way, setup: Setup, on_status: Callable[[float], None]
) -> Sample:
    """Make one image and refuse one that is no image.

    Raises:
        GeneratorError: out of memory, the model failed, or what it made is not finite.
    """
    with failures(setup):
        made = sample(
            subject,
            way,
            steps=setup.steps,
            negative_steps=setup.negative_steps,
            size=setup.size,
            on_status=lambda forwards: on_status(setup.work(forwards)),
        )
        if not made.latents.isfinite().all():
            raise GeneratorError(
                f"{setup.model.name} in {setup.dtype} made numbers that are not finite, so its "
                "times say nothing; try another --dtype or --size"
            )
    return made

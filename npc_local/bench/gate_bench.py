"""What a negative prompt costs: seconds an image without one, in the first steps, in every step.

Three ways of sampling are timed on a FLUX.1 transformer with random weights: time depends on
shapes, not on what a model has learned. All of them go through the real FluxPipeline and the real
gate. Only sampling is measured: prompt embeddings are random numbers made beforehand, and the
latents are not decoded. Leaves out: printing and progress (`command`).
"""

from __future__ import annotations

import gc
import importlib.metadata
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from npc_local.bench.tables import _table
from npc_local.device import resolve_device
from npc_local.diffusion.families import family_of
from npc_local.diffusion.family import Pipeline
from npc_local.diffusion.gate import Gate, early_negative, gated
from npc_local.errors import ConfigError, GeneratorError

if TYPE_CHECKING:
    import torch

Way = Literal["none", "gate", "stock"]
WAYS: tuple[Way, ...] = ("none", "gate", "stock")
TRUE_CFG_SCALE = 1.8  # the paper's
_WARM_UP_STEPS = 2
_PATCH = 16  # pixels along a side of a transformer's token: 8 of the VAE, 2 of the packing
_SMALLEST = 64
_CPU_SHARE = 0.8  # of the machine's memory, for weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A FLUX.1 transformer that can be measured.

    Attributes:
        name: what the command calls it.
        size: default side of the square image, in pixels.
        steps: default denoising steps.
        text_tokens: length of the prompt's embeddings.
        config: arguments of FluxTransformer2DModel.
    """

    name: str
    size: int
    steps: int
    text_tokens: int
    config: Mapping[str, Any] = field(hash=False)


def _flux(double: int, single: int, heads: int, width: int, text: int, pooled: int) -> Any:
    """Return a configuration with FLUX.1-dev's proportions."""
    eighth = width // 8
    return {
        "in_channels": 64,
        "num_layers": double,
        "num_single_layers": single,
        "num_attention_heads": heads,
        "attention_head_dim": width,
        "joint_attention_dim": text,
        "pooled_projection_dim": pooled,
        "axes_dims_rope": (eighth, (width - eighth) // 2, (width - eighth) // 2),
        "guidance_embeds": True,
    }


MODELS = {
    model.name: model
    for model in (
        Model(
            name="tiny",
            size=256,
            steps=20,
            text_tokens=64,
            config=_flux(double=1, single=2, heads=4, width=64, text=256, pooled=128),
        ),
        Model(  # as large as lets the default command end in about a minute on two CPU cores
            name="middle",
            size=256,
            steps=20,
            text_tokens=64,
            config=_flux(double=2, single=4, heads=8, width=64, text=512, pooled=256),
        ),
        Model(
            name="full",  # FLUX.1-dev
            size=1024,
            steps=50,
            text_tokens=512,
            config=_flux(double=19, single=38, heads=24, width=128, text=4096, pooled=768),
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One model to measure, and how.

    Attributes:
        steps: denoising steps of an image.
        negative_steps: how many of them have the negative, when gated.
        size: side of the square image, in pixels.
        repeats: timed images of each way.
        device: "cpu" or "cuda".
        dtype: of weights and activations, "float32" or "bfloat16".
        parameters: of the transformer.
    """

    model: Model
    steps: int
    negative_steps: int
    size: int
    repeats: int
    device: str
    dtype: str
    parameters: int

    def work(self, forwards: int) -> float:
        """Return about how many operations that many forwards are."""
        tokens = (self.size // _PATCH) ** 2 + self.model.text_tokens
        return 2.0 * self.parameters * tokens * forwards

    def total_work(self, *, compiled: bool) -> float:
        """Return the work of measuring it all, warm-up included."""
        warm = _warm_up(self)
        forwards = sum(
            _planned(way, warm.steps, warm.negative_steps)
            + self.repeats * _planned(way, self.steps, self.negative_steps)
            for way in WAYS
        )
        return self.work(forwards) * (2 if compiled else 1)


def _planned(way: Way, steps: int, negative_steps: int) -> int:
    """Return the forwards that a way should need."""
    return {"none": steps, "gate": steps + negative_steps, "stock": 2 * steps}[way]


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
class Measured:
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
class Result:
    """A model, measured in all ways; `compiled` tells whether its blocks were."""

    job: Job
    compiled: bool
    ways: Mapping[Way, Measured]

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
        job = self.job
        return {
            "model": job.model.name,
            "parameters": job.parameters,
            "size": job.size,
            "text_tokens": job.model.text_tokens,
            "steps": job.steps,
            "negative_steps": job.negative_steps,
            "compiled": self.compiled,
            "ways": {
                way: {
                    "forwards": found.forwards,
                    "seconds": list(found.seconds),
                    "median_seconds": found.median,
                    "ratio": self.ratio(way),
                    "expected_ratio": self.expected(way),
                    "peak_bytes": found.peak_bytes,
                }
                for way, found in self.ways.items()
            },
        }


def choose_device(device: str) -> str:
    """Return "cpu" or "cuda" for one of them or "auto".

    Raises:
        ConfigError: there is no GPU.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "--device cuda: PyTorch sees no GPU here; use --device cpu, or install a CUDA build of "
            "PyTorch and check the driver"
        )
    return resolve_device(device)


def plan(
    name: str,
    *,
    steps: int | None,
    negative_steps: int,
    size: int | None,
    repeats: int,
    device: str,
    dtype: str,
) -> Job:
    """Check what is to be measured; None takes the model's own number.

    Args:
        name: one of `MODELS`.
        steps: denoising steps.
        negative_steps: how many of them have the negative, when gated.
        size: side of the square image, in pixels.
        repeats: timed images of each way.
        device: "cpu" or "cuda".
        dtype: "float32", "bfloat16" or "auto": bfloat16 on a GPU, float32 on a CPU.

    Raises:
        ConfigError: a number does not fit the model or another number.
        GeneratorError: the weights alone need more memory than there is.
    """
    model = MODELS[name]
    steps = model.steps if steps is None else steps
    size = model.size if size is None else size
    if negative_steps > steps:
        raise ConfigError(
            f"--negative-steps: found {negative_steps}; must be at most {steps}, the denoising "
            f"steps of {name} (--steps)"
        )
    if size % _PATCH or size < _SMALLEST:
        raise ConfigError(
            f"--size: found {size}; must be a multiple of {_PATCH} and at least {_SMALLEST}"
        )
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" else "float32"
    job = Job(
        model=model,
        steps=steps,
        negative_steps=negative_steps,
        size=size,
        repeats=repeats,
        device=device,
        dtype=dtype,
        parameters=count_parameters(model),
    )
    _check_memory(job)
    return job


def count_parameters(model: Model) -> int:
    """Return how many parameters a transformer has, without making them."""
    return sum(weights.numel() for weights in _transformer(model, "meta", "float32").parameters())


def _transformer(model: Model, device: str, dtype: str) -> Any:
    """Return a transformer with random weights, made on the device in the type wanted."""
    import diffusers
    import torch

    classes: Any = diffusers  # whose constructors carry no types
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.random.fork_rng(enabled=device != "meta"), torch.device(device):
            torch.manual_seed(0)
            return classes.FluxTransformer2DModel(**model.config).eval()
    finally:
        torch.set_default_dtype(before)


def _check_memory(job: Job) -> None:
    """Refuse weights that cannot fit, before the system ends the process over them."""
    import torch

    needed = job.parameters * getattr(torch, job.dtype).itemsize
    if job.device == "cuda":
        there = torch.cuda.mem_get_info()[0]
    else:  # some of which the system and other programs have
        there = int(_CPU_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    if needed >= there:
        raise _out_of_memory(
            job, f"its weights need {needed / 1e9:.1f} GB, and {there / 1e9:.1f} GB can be had"
        )


def _out_of_memory(job: Job, why: str) -> GeneratorError:
    """Return the error that says what to do about memory."""
    ways = ["a smaller --model or --size"]
    if job.dtype == "float32":
        ways.append("--dtype bfloat16")
    ways.append("--device cuda" if job.device == "cpu" else "ending other programs on the GPU")
    return GeneratorError(
        f"out of memory on {job.device} with {job.model.name} at {job.size} x {job.size} in "
        f"{job.dtype}: {why}; what may help: {', '.join(ways)}"
    )


@dataclass(frozen=True, slots=True)
class Subject:
    """A pipeline with random weights, and the embeddings of a prompt and a negative for it."""

    pipe: Pipeline
    prompt: Mapping[str, torch.Tensor]
    negative: Mapping[str, torch.Tensor]


def build(job: Job) -> Subject:
    """Make a pipeline on its device: FLUX.1-dev's scheduler, no text encoders and no VAE.

    Raises:
        GeneratorError: out of memory.
    """
    import diffusers
    import torch

    classes: Any = diffusers
    config, dtype = job.model.config, getattr(torch, job.dtype)
    with _failures(job):
        pipe = classes.FluxPipeline(
            scheduler=classes.FlowMatchEulerDiscreteScheduler(
                shift=3.0,
                use_dynamic_shifting=True,
                base_image_seq_len=256,
                max_image_seq_len=4096,
                base_shift=0.5,
                max_shift=1.15,
            ),
            vae=None,
            text_encoder=None,
            tokenizer=None,
            text_encoder_2=None,
            tokenizer_2=None,
            transformer=_transformer(job.model, job.device, job.dtype),
        )
        pipe.set_progress_bar_config(disable=True)

        def embeddings(prefix: str, seed: int) -> dict[str, torch.Tensor]:
            random = torch.Generator().manual_seed(seed)
            shapes = {
                "prompt_embeds": (1, job.model.text_tokens, config["joint_attention_dim"]),
                "pooled_prompt_embeds": (1, config["pooled_projection_dim"]),
            }
            return {
                prefix + name: torch.randn(shape, generator=random).to(job.device, dtype)
                for name, shape in shapes.items()
            }

        return Subject(pipe, embeddings("", 1), embeddings("negative_", 2))


def sample(
    subject: Subject,
    way: Way,
    *,
    steps: int,
    negative_steps: int,
    size: int,
    told: Callable[[int], None] = lambda forwards: None,
) -> Sample:
    """Make one image, always from the same noise.

    Args:
        subject: what makes it.
        way: "none": no negative. "gate": with the negative in the first steps only. "stock": in
            every step.
        steps: denoising steps.
        negative_steps: how many of them have the negative, when gated.
        size: side of the square image, in pixels.
        told: is given the number of forwards done since the last time, after each step.
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
            told(gate.forwards - before)
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
    return _counting(Gate(pipe, family_of(type(pipe)), 0, "off", confines=False))


@contextmanager
def _counting(gate: Gate) -> Iterator[Gate]:
    with gated(gate):
        yield gate


def measure(
    job: Job,
    *,
    compiled: bool = False,
    told: Callable[[str, float], None] = lambda doing, work: None,
) -> list[Result]:
    """Measure a model in all ways, in turn, so that a change of the machine's pace meets all.

    Args:
        job: what to measure.
        compiled: measure again with the transformer's repeated blocks compiled.
        told: is given what is being done, and the work done since the last time.

    Raises:
        GeneratorError: out of memory, the model failed, or what it made is not finite.
    """
    name = job.model.name
    told(f"{name}: making weights", 0.0)
    subject = build(job)
    try:
        results = [_measure(job, subject, name, told)]
        if compiled:
            subject.pipe.transformer.compile_repeated_blocks()
            found = _measure(job, subject, f"{name}, compiled", told)
            results.append(replace(found, compiled=True))
    finally:
        del subject
        gc.collect()
        if job.device == "cuda":
            import torch

            torch.cuda.empty_cache()
    return results


def _measure(job: Job, subject: Subject, name: str, told: Callable[[str, float], None]) -> Result:
    """Warm up, then time every way once a round; each round begins with another way."""
    for way in WAYS:
        _checked(subject, way, _warm_up(job), partial(told, f"{name}: warming up"))
    samples: dict[Way, list[Sample]] = {way: [] for way in WAYS}
    for number in range(job.repeats):
        first = number % len(WAYS)
        for way in (*WAYS[first:], *WAYS[:first]):
            doing = f"{name}: {way}, {number + 1} of {job.repeats}"
            samples[way].append(_checked(subject, way, job, partial(told, doing)))
    ways = {
        way: Measured(
            found[0].forwards,
            tuple(one.seconds for one in found),
            max((one.peak_bytes for one in found if one.peak_bytes is not None), default=None),
        )
        for way, found in samples.items()
    }
    return Result(job, False, ways)


def _warm_up(job: Job) -> Job:
    """Return the same job with as few steps as see every kind of step."""
    steps = min(job.steps, _WARM_UP_STEPS)
    return replace(job, steps=steps, negative_steps=min(job.negative_steps, steps - 1) or 1)


def _checked(subject: Subject, way: Way, job: Job, told: Callable[[float], None]) -> Sample:
    """Make one image and refuse one that is no image.

    Raises:
        GeneratorError: out of memory, the model failed, or what it made is not finite.
    """
    with _failures(job):
        made = sample(
            subject,
            way,
            steps=job.steps,
            negative_steps=job.negative_steps,
            size=job.size,
            told=lambda forwards: told(job.work(forwards)),
        )
        if not made.latents.isfinite().all():
            raise GeneratorError(
                f"{job.model.name} in {job.dtype} made numbers that are not finite, so its times "
                "say nothing; try another --dtype or --size"
            )
    return made


@contextmanager
def _failures(job: Job) -> Iterator[None]:
    """Turn what PyTorch raises into an error of ours."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(job, str(error).partition(". ")[0]) from None
    except RuntimeError as error:
        first = str(error).strip().partition("\n")[0]
        if "DefaultCPUAllocator" in first:
            raise _out_of_memory(job, first) from None
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise GeneratorError(f"cannot be compiled: {first}; leave --compile out") from error
        raise GeneratorError(f"the model failed: {first}") from error


def markdown(results: Sequence[Result]) -> str:
    """Return the results as a markdown table, which reads well in a terminal too."""
    memory = any(found.peak_bytes is not None for one in results for found in one.ways.values())
    head = ["model", "parameters", "image", "steps", "negative", "forwards", "s an image"]
    head += ["lowest-highest", "ratio", "by forwards", *(["peak memory"] if memory else [])]
    rows = []
    for result in results:
        job = result.job
        name = f"{job.model.name}, compiled" if result.compiled else job.model.name
        model = [name, _count(job.parameters), f"{job.size} x {job.size}", str(job.steps)]
        negatives = {"none": "none", "gate": f"first {job.negative_steps}", "stock": "every step"}
        for way, found in result.ways.items():
            peak = "" if found.peak_bytes is None else f"{found.peak_bytes / 1e9:.2f} GB"
            rows.append(
                [
                    *model,
                    negatives[way],
                    str(found.forwards),
                    f"{found.median:.3f}",
                    f"{min(found.seconds):.3f}-{max(found.seconds):.3f}",
                    f"{result.ratio(way):.3f}",
                    f"{result.expected(way):.3f}",
                    *([peak] if memory else []),
                ]
            )
    return "\n".join(_table(head, rows)) + "\n"


def _count(number: int) -> str:
    """Return a number of parameters in millions or thousands of millions."""
    return f"{number / 1e9:.1f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"


def title(machine: Mapping[str, Any]) -> str:
    """Return in a line what `machine` told."""
    threads = "" if machine["device"] == "cuda" else f", threads: {machine['threads']}"
    return (
        f"{machine['name']}{threads}, {machine['dtype']}, torch {machine['torch']}, diffusers "
        f"{machine['diffusers']}; images timed each way, in turn: {machine['repeats']}."
    )


def machine(job: Job) -> dict[str, Any]:
    """Return what the times depend on besides the model."""
    import torch

    cuda = job.device == "cuda"
    return {
        "device": job.device,
        "name": torch.cuda.get_device_name() if cuda else "CPU",
        "threads": torch.get_num_threads(),
        "dtype": job.dtype,
        "repeats": job.repeats,
        "torch": torch.__version__,
        "diffusers": importlib.metadata.version("diffusers"),
    }

"""FLUX.1 transformers with random weights, made on their device, to measure time and memory with.

Time depends on shapes, not on what a model has learned. Leaves out: measuring (`measure`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from npc_local.core.device import resolve_device
from npc_local.core.device_errors import is_out_of_memory
from npc_local.core.errors import ConfigError, GeneratorError
from npc_local.generator.family import Pipeline

if TYPE_CHECKING:
    import torch

Way = Literal["none", "gate", "stock"]
WAYS: tuple[Way, ...] = ("none", "gate", "stock")
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
class Setup:
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

    def warm_up(self) -> Setup:
        """Return the same job with as few steps as see every kind of step."""
        steps = min(self.steps, _WARM_UP_STEPS)
        return replace(self, steps=steps, negative_steps=min(self.negative_steps, steps - 1) or 1)

    def total_work(self, *, compiled: bool) -> float:
        """Return the work of measuring it all, warm-up included."""
        warm = self.warm_up()
        forwards = sum(
            _planned(way, warm.steps, warm.negative_steps)
            + self.repeats * _planned(way, self.steps, self.negative_steps)
            for way in WAYS
        )
        return self.work(forwards) * (2 if compiled else 1)


def _planned(way: Way, steps: int, negative_steps: int) -> int:
    """Return the forwards that a way should need."""
    return {"none": steps, "gate": steps + negative_steps, "stock": 2 * steps}[way]


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
) -> Setup:
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
    setup = Setup(
        model=model,
        steps=steps,
        negative_steps=negative_steps,
        size=size,
        repeats=repeats,
        device=device,
        dtype=dtype,
        parameters=count_parameters(model),
    )
    _check_memory(setup)
    return setup


def count_parameters(model: Model) -> int:
    """Return how many parameters a transformer has, without making them."""
    return sum(weights.numel() for weights in _transformer(model, "meta", "float32").parameters())


def _transformer(model: Model, device: str, dtype: str) -> Any:
    """Return a transformer with random weights, made on the device in the type wanted."""
    import diffusers
    import torch

    classes: Any = diffusers  # whose constructors carry no types
    # Outside the device context: modules that are imported inside it make their constants there.
    transformer = classes.FluxTransformer2DModel
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.random.fork_rng(enabled=device != "meta"), torch.device(device):
            torch.manual_seed(0)
            return transformer(**model.config).eval()
    finally:
        torch.set_default_dtype(before)


def _check_memory(setup: Setup) -> None:
    """Refuse weights that cannot fit, before the system ends the process over them."""
    import torch

    needed = setup.parameters * getattr(torch, setup.dtype).itemsize
    if setup.device == "cuda":
        there = torch.cuda.mem_get_info()[0]
    else:  # some of which the system and other programs have
        there = int(_CPU_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    if needed >= there:
        raise _out_of_memory(
            setup, f"its weights need {needed / 1e9:.1f} GB, and {there / 1e9:.1f} GB can be had"
        )


def _out_of_memory(setup: Setup, why: str) -> GeneratorError:
    """Return the error that says what to do about memory."""
    ways = ["a smaller --model or --size"]
    if setup.dtype == "float32":
        ways.append("--dtype bfloat16")
    ways.append("--device cuda" if setup.device == "cpu" else "ending other programs on the GPU")
    return GeneratorError(
        f"out of memory on {setup.device} with {setup.model.name} at {setup.size} x {setup.size} "
        f"in {setup.dtype}: {why}; what may help: {', '.join(ways)}"
    )


@dataclass(frozen=True, slots=True)
class Subject:
    """A pipeline with random weights, and the embeddings of a prompt and a negative for it."""

    pipe: Pipeline
    prompt: Mapping[str, torch.Tensor]
    negative: Mapping[str, torch.Tensor]


def build(setup: Setup) -> Subject:
    """Make a pipeline on its device: FLUX.1-dev's scheduler, no text encoders and no VAE.

    Raises:
        GeneratorError: out of memory.
    """
    import diffusers
    import torch

    classes: Any = diffusers
    config, dtype = setup.model.config, getattr(torch, setup.dtype)
    with failures(setup):
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
            transformer=_transformer(setup.model, setup.device, setup.dtype),
        )
        pipe.set_progress_bar_config(disable=True)

        def embeddings(prefix: str, seed: int) -> dict[str, torch.Tensor]:
            random = torch.Generator().manual_seed(seed)
            shapes = {
                "prompt_embeds": (1, setup.model.text_tokens, config["joint_attention_dim"]),
                "pooled_prompt_embeds": (1, config["pooled_projection_dim"]),
            }
            return {
                prefix + name: torch.randn(shape, generator=random).to(setup.device, dtype)
                for name, shape in shapes.items()
            }

        return Subject(pipe, embeddings("", 1), embeddings("negative_", 2))


@contextmanager
def failures(setup: Setup) -> Iterator[None]:
    """Turn what PyTorch raises into an error of ours."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        first = str(error).strip().partition("\n")[0]
        if is_out_of_memory(error):
            raise _out_of_memory(setup, first.partition(". ")[0]) from None
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise GeneratorError(f"cannot be compiled: {first}; leave --compile out") from error
        raise GeneratorError(f"the model failed: {first}") from error

"""The model families: how each diffusers pipeline asks its denoiser, and which ones cannot play.

One `Family` says all that the gate and the generator need to know of a pipeline; docs/models.md
is printed from this file. Leaves out: acting on it (`gate`, `generator`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from npc_local.errors import ConfigError

# A diffusers pipeline: its classes load lazily, and type checkers see them as empty.
Pipeline: TypeAlias = Any
After = Literal["off", "null"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How one model family takes a negative prompt.

    Attributes:
        name: what its makers call the model.
        pipeline: the diffusers text-to-image class; subclasses count too.
        guides: how a guided step asks the denoiser. "two calls": conditional, then
            unconditional. "one batch": both at once, unconditional first unless
            `conditional_first`.
        after: the default for the late steps. "off" where the makers sample without CFG,
            "null" where they use it throughout.
        scale: the call argument that holds the scale of CFG; "guider": an attribute of the
            pipeline's guider instead.
        scale_off: the largest value of `scale` that switches CFG off. Where it is 0, the
            pipeline's scale is one lower than the usual one.
        default_scale: the usual scale, s in n + s * (p - n), that it is used with here; None:
            the one that its pipeline has by default.
        null: the negative prompt that the pipeline's own baseline uses; None where the baseline
            is made without naming one.
        takes_text: False where the call takes negative embeddings only.
        embedded: the call argument of a guidance scale that is an input of the denoiser.
        fixed: call arguments that a generator always sets, with the reason in a comment.
        batch_dims: denoiser inputs whose batch is not in dimension 0.
        reuses_first: whether the conditional prediction of step 0 may be replayed to other
            calls with the same prompt and noise, bit for bit.
        caches: whether its pipeline tells diffusers' caches which prediction is which.
        reads: text tokens that the model reads, where no call argument says so.
        tokenizer: the component that counts them.
        size_multiple: sides of an image must be multiples of this many latent pixels.
        undistilled: what to use in place of a distilled checkpoint of this family.
        distilled_names: words in a checkpoint's name that mark it as distilled, in this family.
        notes: what a user should know.
    """

    name: str
    pipeline: str
    guides: Literal["two calls", "one batch"]
    after: After = "null"
    scale: str = "guidance_scale"
    scale_off: float = 1.0
    default_scale: float | None = None
    conditional_first: bool = False
    null: str | None = ""
    takes_text: bool = True
    embedded: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    batch_dims: Mapping[str, int] = field(default_factory=dict)
    reuses_first: bool = True
    caches: bool = False
    reads: int | None = None
    tokenizer: str = "tokenizer"
    size_multiple: int = 2
    undistilled: str = ""
    distilled_names: tuple[str, ...] = ()
    notes: str = ""

    def native_scale(self, true_cfg_scale: float) -> float:
        """Return the value of `scale` that stands for the usual n + s * (p - n)."""
        return true_cfg_scale - 1 + self.scale_off


FAMILIES = (
    Family(
        name="FLUX.1",
        pipeline="FluxPipeline",
        guides="two calls",
        caches=True,
        after="off",
        scale="true_cfg_scale",
        default_scale=1.8,  # the paper's
        embedded="guidance_scale",
        tokenizer="tokenizer_2",
        undistilled="FLUX.1-dev",
        notes="The paper's model. Guidance-distilled: its own images are made without CFG.",
    ),
    Family(
        name="Stable Diffusion 3.5",
        pipeline="StableDiffusion3Pipeline",
        guides="one batch",
        tokenizer="tokenizer_3",
        undistilled="stable-diffusion-3.5-large",
    ),
    Family(
        name="Stable Diffusion XL",
        pipeline="StableDiffusionXLPipeline",
        guides="one batch",
        null=None,
        reads=77,
        size_multiple=1,
        undistilled="stable-diffusion-xl-base-1.0",
        notes="Its null prompt is an embedding of zeros, not the encoded empty text.",
    ),
    Family(
        name="Stable Diffusion 1 and 2",
        pipeline="StableDiffusionPipeline",
        guides="one batch",
        reads=77,
        size_multiple=1,
        undistilled="stable-diffusion-2-1",
    ),
    Family(
        name="Qwen-Image",
        pipeline="QwenImagePipeline",
        guides="two calls",
        caches=True,
        scale="true_cfg_scale",
        embedded="guidance_scale",
        null=" ",
        undistilled="Qwen-Image",
        notes='Makes no guided image without a negative; its makers use " ", which is the null.',
    ),
    Family(
        name="Z-Image",
        pipeline="ZImagePipeline",
        guides="one batch",
        conditional_first=True,
        scale_off=0.0,
        undistilled="Z-Image",
        notes="guidance_scale is one lower than the usual scale.",
    ),
    Family(
        name="FLUX.2-klein",
        pipeline="Flux2KleinPipeline",
        guides="two calls",
        caches=True,
        null=None,
        takes_text=False,
        undistilled="FLUX.2-klein-base",
        notes="Negative text goes in as negative_prompt_embeds, from pipe.encode_prompt.",
    ),
    Family(
        name="Chroma",
        pipeline="ChromaPipeline",
        guides="two calls",
        undistilled="Chroma1-Base",
    ),
    Family(
        name="Sana",
        pipeline="SanaPipeline",
        guides="one batch",
        # Off: binning makes another size than the one asked for and crops it.
        fixed={"use_resolution_binning": False},
        size_multiple=1,
        undistilled="Sana (not Sprint)",
        notes="Its instruction to enhance the prompt goes before the positive prompt only.",
    ),
    Family(
        name="PixArt-Sigma",
        pipeline="PixArtSigmaPipeline",
        guides="one batch",
        fixed={"use_resolution_binning": False},
        size_multiple=1,
        undistilled="PixArt-Sigma-XL-2-1024-MS",
    ),
    Family(
        name="Lumina 2",
        pipeline="Lumina2Pipeline",
        guides="two calls",
        undistilled="Lumina-Image-2.0",
    ),
    Family(
        name="HunyuanImage-2.1",
        pipeline="HunyuanImagePipeline",
        guides="two calls",
        caches=True,
        scale="guider",
        embedded="distilled_guidance_scale",
        reads=1000,
        undistilled="HunyuanImage-2.1-Diffusers (not Distilled)",
        notes="The scale is pipe.guider.guidance_scale; from step 6 on, its guider replaces CFG "
        "by adaptive projected guidance, with a scale of its own.",
    ),
    Family(
        name="CogView4",
        pipeline="CogView4Pipeline",
        guides="two calls",
        caches=True,
        undistilled="CogView4-6B",
    ),
    Family(
        name="HiDream-I1",
        pipeline="HiDreamImagePipeline",
        guides="one batch",
        batch_dims={"encoder_hidden_states_llama3": 1},
        undistilled="HiDream-I1-Full",
        distilled_names=("dev", "fast"),
    ),
    Family(
        name="Krea 2",
        pipeline="Krea2Pipeline",
        guides="two calls",
        scale_off=0.0,
        undistilled="the base (Raw) Krea 2 checkpoint",
        notes="guidance_scale is one lower than the usual scale.",
    ),
    Family(
        name="Qwen-Image-2.1",
        pipeline="QwenImage21Pipeline",
        guides="two calls",
        after="off",
        scale="true_cfg_scale",
        default_scale=4.0,
        null=" ",
        # Step 0 also fills the key-value cache that the later steps read.
        reuses_first=False,
        undistilled="Qwen-Image-2.1",
        notes="Its own default is an image without CFG.",
    ),
    Family(
        name="Ovis-Image",
        pipeline="OvisImagePipeline",
        guides="two calls",
        caches=True,
        undistilled="Ovis-Image-7B",
    ),
    Family(
        name="LongCat-Image",
        pipeline="LongCatImagePipeline",
        guides="two calls",
        caches=True,
        # Off: the text model would rewrite the prompt that the verifier checks.
        fixed={"enable_prompt_rewrite": False},
        undistilled="LongCat-Image",
        notes="Rewrites prompts unless told not to; a generator tells it not to.",
    ),
    Family(
        name="AuraFlow",
        pipeline="AuraFlowPipeline",
        guides="one batch",
        undistilled="AuraFlow-v0.3",
    ),
    Family(
        name="Kolors",
        pipeline="KolorsPipeline",
        guides="one batch",
        null=None,
        size_multiple=1,
        undistilled="Kolors-diffusers",
        notes="Its null prompt is an embedding of zeros where the checkpoint says so.",
    ),
)

# Pipelines that would ignore a negative prompt: (why, what to use instead).
REFUSED = {
    "Flux2Pipeline": (
        "FLUX.2-dev is guidance-distilled and its pipeline takes no negative prompt at all",
        "FLUX.2-klein-base",
    ),
    "Ideogram4Pipeline": (
        "Ideogram 4 guides with a separate unconditional model that reads no text",
        "Qwen-Image or FLUX.1-dev",
    ),
    "OmniGenPipeline": (
        "OmniGen's pipeline takes no negative text",
        "Qwen-Image or FLUX.1-dev",
    ),
    "SanaSprintPipeline": (
        "Sana-Sprint is step-distilled and its guidance is an input of the denoiser",
        "Sana (SanaPipeline)",
    ),
    "GlmImagePipeline": (
        "GLM-Image's pipeline always guides against the empty prompt",
        "CogView4",
    ),
    "LatentConsistencyModelPipeline": (
        "latent consistency models are step-distilled and sampled without CFG",
        "the model that they were distilled from",
    ),
}

_FEW_STEP_SCHEDULERS = ("LCMScheduler", "TCDScheduler")
_FEW_STEP_NAME = re.compile(
    r"(?<![a-z])(?<!de-)(?<!de_)(turbo|schnell|lightning|lcm|hyper|distill(?:ed)?|sprint|dmd2?)"
    r"(?![a-z])",
    re.IGNORECASE,
)


def family_of(pipeline: type | str) -> Family:
    """Return the family of a diffusers pipeline class, or of the class with this name.

    Raises:
        ConfigError: the class would ignore a negative prompt, or is not known.
    """
    names = [pipeline] if isinstance(pipeline, str) else [kind.__name__ for kind in pipeline.mro()]
    for name in names:
        for family in FAMILIES:
            if family.pipeline == name:
                return family
        if name in REFUSED:
            why, instead = REFUSED[name]
            raise ConfigError(f"{name}: {why}; use {instead} instead")
    raise ConfigError(
        f"pipelines of class {names[0]} are not supported; supported: "
        f"{', '.join(sorted(family.pipeline for family in FAMILIES))}"
    )


def refuse_distilled(family: Family, pipe: Pipeline) -> None:
    """Refuse a loaded checkpoint that was distilled to be sampled without CFG.

    Raises:
        ConfigError: says by what it was recognised, and what to use instead.
    """
    sign = _distilled_sign(pipe) or distilled_name(family, _checkpoint(pipe))
    if sign:
        raise distilled_error(family, sign)


def distilled_name(family: Family, name: str) -> str | None:
    """Return in words how a checkpoint's or LoRA's name shows that it is distilled, or None."""
    found = _FEW_STEP_NAME.search(name)
    words = [found.group(1)] if found else []
    words += [word for word in family.distilled_names if word in re.split(r"\W+", name.lower())]
    return f"it is called {name!r}" if words else None


def distilled_error(family: Family, sign: str) -> ConfigError:
    """Return the refusal of a distilled checkpoint."""
    return ConfigError(
        f"this {family.name} checkpoint is distilled to few steps without CFG ({sign}): it would "
        f"ignore a negative prompt or be spoilt by it; use {family.undistilled} instead, or set "
        "allow_distilled if the sign misleads"
    )


def _checkpoint(pipe: Pipeline) -> str:
    """Return the last part of the path or hub name that `pipe` was loaded from."""
    return Path(str(pipe.config.get("_name_or_path") or "")).name


def _distilled_sign(pipe: Pipeline) -> str | None:
    """Return what in a pipeline's configuration shows that it is distilled, or None."""
    scheduler = type(pipe.scheduler).__name__
    denoiser = denoiser_of(pipe).config
    if pipe.config.get("is_distilled"):
        return "its is_distilled is true"
    if scheduler in _FEW_STEP_SCHEDULERS:
        return f"its scheduler is {scheduler}"
    if denoiser.get("time_cond_proj_dim"):
        return "its denoiser takes the guidance scale as an input, time_cond_proj_dim"
    if denoiser.get("use_meanflow"):
        return "its denoiser's use_meanflow is true"
    shifts = pipe.scheduler.config.get("use_dynamic_shifting")
    if denoiser.get("_class_name") == "FluxTransformer2DModel" and not (
        denoiser.get("guidance_embeds") or shifts
    ):
        return "FLUX.1 with neither guidance embedding nor dynamic shifting, as schnell"
    return None


def denoiser_of(pipe: Pipeline) -> Any:
    """Return the model that predicts the noise: the pipeline's transformer or unet."""
    denoiser = getattr(pipe, "transformer", None)
    return pipe.unet if denoiser is None else denoiser

"""The model families: how each diffusers pipeline asks its denoiser, and which ones cannot play.

docs/reference/models.md is printed from this file. Leaves out: acting on it (`gate`).
"""

from __future__ import annotations

import re
from pathlib import Path

from npc_local.core.errors import ConfigError
from npc_local.generator.family import Family, Pipeline, denoiser_of

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
        compiles=False,
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
        notes="Its null prompt is an embedding of zeros where the checkpoint says so "
        "(force_zeros_for_empty_prompt), else the encoded empty text.",
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
        template_tokens=16,
        attention_mask="keys",
        undistilled="Z-Image",
        notes="guidance_scale is one lower than the usual scale.",
    ),
    Family(
        name="FLUX.2-klein",
        pipeline="Flux2KleinPipeline",
        guides="two calls",
        null=None,
        takes_text=False,
        template_tokens=16,
        undistilled="FLUX.2-klein-base",
        notes="Negative text goes in as negative_prompt_embeds, from pipe.encode_prompt.",
    ),
    Family(
        name="Chroma",
        pipeline="ChromaPipeline",
        guides="two calls",
        attention_mask="weights",
        undistilled="Chroma1-Base",
    ),
    Family(
        name="Sana",
        pipeline="SanaPipeline",
        guides="one batch",
        compiles=False,
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
        loras=False,
        compiles=False,
        # Off, too: cleaning depends on what is installed, and deletes text such as "3x4".
        fixed={"use_resolution_binning": False, "clean_caption": False},
        undistilled="PixArt-Sigma-XL-2-1024-MS",
    ),
    Family(
        name="Lumina 2",
        pipeline="Lumina2Pipeline",
        guides="two calls",
        compiles=False,
        template_tokens=48,
        undistilled="Lumina-Image-2.0",
    ),
    Family(
        name="HunyuanImage-2.1",
        pipeline="HunyuanImagePipeline",
        guides="two calls",
        loras=False,
        caches=True,
        scale="guider",
        reads=1000,
        attention_mask="keys",
        undistilled="HunyuanImage-2.1-Diffusers (not Distilled)",
        notes="The scale is pipe.guider.guidance_scale; from step 6 on, its guider replaces CFG "
        "by adaptive projected guidance, with a scale of its own. A prompt with quoted words uses "
        "pipe.ocr_guider.",
    ),
    Family(
        name="CogView4",
        pipeline="CogView4Pipeline",
        guides="two calls",
        compiles=False,
        caches=True,
        undistilled="CogView4-6B",
    ),
    Family(
        name="HiDream-I1",
        pipeline="HiDreamImagePipeline",
        guides="one batch",
        compiles=False,
        batch_dims={"encoder_hidden_states_llama3": 1},
        tokenizer="tokenizer_3",
        undistilled="HiDream-I1-Full",
        distilled_names=("dev", "fast"),
        notes="Makes images of about one megapixel, whatever size is asked for; a generator "
        "refuses sizes that it does not make.",
    ),
    Family(
        name="Krea 2",
        pipeline="Krea2Pipeline",
        guides="two calls",
        scale_off=0.0,
        template_tokens=5,
        attention_mask="keys",
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
        attention_mask="pairs",
        undistilled="Qwen-Image-2.1",
        notes="Its own default is an image without CFG. Its processor needs the torchvision "
        "package.",
    ),
    Family(
        name="Ovis-Image",
        pipeline="OvisImagePipeline",
        guides="two calls",
        loras=False,
        template_tokens=16,
        undistilled="Ovis-Image-7B",
    ),
    Family(
        name="LongCat-Image",
        pipeline="LongCatImagePipeline",
        guides="two calls",
        loras=False,
        # Off: the text model would rewrite the prompt that the verifier checks.
        fixed={"enable_prompt_rewrite": False},
        reads=512,
        undistilled="LongCat-Image",
        notes="Rewrites prompts unless told not to; a generator tells it not to. Its processor "
        "needs the torchvision package.",
    ),
    Family(
        name="AuraFlow",
        pipeline="AuraFlowPipeline",
        guides="one batch",
        compiles=False,
        undistilled="AuraFlow-v0.3",
    ),
    Family(
        name="Kolors",
        pipeline="KolorsPipeline",
        guides="one batch",
        size_multiple=1,
        undistilled="Kolors-diffusers",
        notes="Needs the sentencepiece package. Its null is the encoded empty text: the zeros that "
        "force_zeros_for_empty_prompt asks for make its pipeline fail.",
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

# Words in the names of distilled checkpoints and LoRAs.
_FEW_STEP_WORDS = frozenset(
    {"turbo", "schnell", "lightning", "flash", "lcm", "tcd", "pcm", "dmd"}
    | {"distill", "distilled", "sprint", "hypersd"}
)
_NOT = frozenset({"de", "un", "not", "non", "no"})  # before such a word
_FEW_STEPS = re.compile(r"(?<!\d)[1-9][-_ ]?steps?(?![a-z])", re.IGNORECASE)
_PART_OF_NAME = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


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
    words = [word.lower() for word in _PART_OF_NAME.findall(name)]
    marks = _FEW_STEP_WORDS | set(family.distilled_names)
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        hyper = word == "hyper" and after.startswith(("sd", "flux"))
        if (word in marks and before not in _NOT) or hyper:
            return f"it is called {name!r}"
    return f"it is called {name!r}" if _FEW_STEPS.search(name) else None


def checkpoint_name(path: Path) -> str:
    """Return what a checkpoint is called: its directory, or in the hub's cache its repository."""
    # .../models--ORG--NAME/snapshots/COMMIT
    return path.parents[1].name if path.parent.name == "snapshots" else path.name


def distilled_error(family: Family, sign: str) -> ConfigError:
    """Return the refusal of a distilled checkpoint."""
    return ConfigError(
        f"this {family.name} checkpoint is distilled to few steps without CFG ({sign}): it would "
        f"ignore a negative prompt or be spoilt by it; use {family.undistilled} instead, or set "
        "allow_distilled if the sign misleads"
    )


def _checkpoint(pipe: Pipeline) -> str:
    """Return the last part of the path or hub name that `pipe` was loaded from."""
    return checkpoint_name(Path(str(pipe.config.get("_name_or_path") or "")))


def _distilled_sign(pipe: Pipeline) -> str | None:
    """Return what in a pipeline's configuration shows that it is distilled, or None."""
    scheduler = type(pipe.scheduler).__name__
    denoiser = denoiser_of(pipe).config
    if pipe.config.get("is_distilled"):
        return "its is_distilled is true"
    if "LCM" in scheduler or "TCD" in scheduler:
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

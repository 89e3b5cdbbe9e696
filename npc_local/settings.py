"""What models.toml may hold, table by table.

Leaves out: reading the file and wording its faults (`config`); whether a model directory is
complete (`diffusion`, `salience`, `backends`). Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

_BUILTIN = {"shapes": Path(__file__).resolve().parent / "shapes" / "weights"}
_DEVICES = "auto, cpu, mps, cuda or cuda:N"


def _local_path(value: object, info: ValidationInfo) -> Path:
    """Turn a path of the file into a local one: `builtin:NAME`, absolute, or beside the file."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a path, written as a string")
    prefix, colon, name = value.partition("builtin:")
    if colon and not prefix:
        if name not in _BUILTIN:
            raise ValueError(f"must be one of {listed('builtin:' + known for known in _BUILTIN)}")
        return _BUILTIN[name]
    if "://" in value:
        raise ValueError("must be a local path, not an address")
    beside = Path() if info.context is None else info.context
    return Path(beside, Path(value).expanduser())


def _device(value: object) -> object:
    """Accept what torch calls a device, plus `auto`."""
    if isinstance(value, str):
        kind, colon, number = value.partition(":")
        plain = value in {"auto", "cpu", "mps", "cuda"}
        if not plain and not (kind == "cuda" and colon and number.isdecimal()):
            raise ValueError(f"must be {_DEVICES}")
    return value


LocalPath = Annotated[Path, BeforeValidator(_local_path)]
Device = Annotated[str, BeforeValidator(_device)]
DType = Literal["float32", "bfloat16", "float16"]


class Section(BaseModel):
    """What all tables share: no unknown key, no silent conversion, no NaN, no change later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# Arguments of a pipeline call that have a setting of their own.
_NAMED = {name: name for name in ("height", "width", "max_sequence_length", "true_cfg_scale")}
_NAMED |= {
    "num_inference_steps": "steps",
    "guidance_scale": "true_cfg_scale, or as guidance_scale where that is an input of the model",
    "distilled_guidance_scale": "guidance_scale",
}
_NAMED |= {name: name for name in ("negative_steps", "after", "allow_distilled")}


class QuantizationSettings(Section):
    """`[generators.NAME.quantization]`: which models of a pipeline are held in fewer bits, and how.

    `options` go to the quantiser's own configuration: bnb_4bit_quant_type, say.
    """

    kind: Literal["bitsandbytes_4bit", "bitsandbytes_8bit", "torchao_int8", "torchao_float8"]
    components: list[str] = Field(default=["transformer"], min_length=1)
    options: dict[str, Any] = {}


class LoraSettings(Section):
    """One of `[[generators.NAME.loras]]`: a safetensors file, or the directory of one."""

    path: LocalPath
    weight: float = 1.0


class CacheSettings(Section):
    """`[generators.NAME.cache]`: diffusers skips late steps that would change little.

    Approximate: the images change. Early steps are always computed in full.
    """

    kind: Literal["mag", "first-block"]
    threshold: float = Field(default=0.05, gt=0)


class GeneratorSettings(Section):
    """`[generators.NAME]`: a diffusers model directory and how to sample from it.

    `true_cfg_scale` is the scale that the negative prompt acts with, s in n + s * (p - n) for
    every family, during the first `negative_steps` denoising steps. `after` says what guides the
    later ones: nothing ("off", one prediction a step) or the null prompt ("null"); left out, what
    the model's makers do. `guidance_scale` is an input of guidance-distilled models. Sizes are in
    pixels, `arguments` are further ones of the pipeline call.
    """

    kind: Literal["diffusers"] = "diffusers"
    path: LocalPath
    steps: int = Field(ge=1)
    true_cfg_scale: float = Field(gt=1)
    guidance_scale: float | None = Field(default=None, ge=0)
    negative_steps: int = Field(default=3, ge=1)
    after: Literal["off", "null"] | None = None
    height: int = Field(ge=16)
    width: int = Field(ge=16)
    max_sequence_length: int | None = Field(default=None, ge=1)
    arguments: dict[str, Any] = {}
    allow_distilled: bool = False
    dtype: DType = "float32"
    device: Device = "auto"
    threads: int | None = Field(default=None, ge=1)
    attention: str | None = None
    compile: bool = False
    offload: Literal["none", "model", "group", "sequential"] = "none"
    vae_tiling: bool = False
    quantization: QuantizationSettings | None = None
    gguf: LocalPath | None = None
    loras: list[LoraSettings] = []
    cache: CacheSettings | None = None

    @model_validator(mode="after")
    def _fits(self) -> GeneratorSettings:
        if self.negative_steps > self.steps:
            raise ValueError(
                f"negative_steps = {self.negative_steps} must be at most steps = {self.steps}"
            )
        for name, setting in _NAMED.items():
            if name in self.arguments:
                raise ValueError(f"arguments: give {name} as {setting}")
        if self.gguf is not None and self.quantization is not None:
            raise ValueError("gguf weights are quantised already; leave out quantization or gguf")
        return self


class ShapesBackendSettings(Section):
    """`[backends.NAME]` with kind = "shapes": the deterministic agents of the embedded world."""

    kind: Literal["shapes"] = "shapes"


class ScriptedBackendSettings(Section):
    """`[backends.NAME]` with kind = "scripted": replies replayed from a JSON file."""

    kind: Literal["scripted"] = "scripted"
    replies: LocalPath


BackendSettings = ShapesBackendSettings | ScriptedBackendSettings


class EncoderSettings(Section):
    """`[encoders.NAME]`: the text encoder whose space ranks the negatives, and the formula."""

    kind: Literal["t5"] = "t5"
    path: LocalPath
    text_encoder: str = Field(default="text_encoder_2", min_length=1)
    tokenizer: str = Field(default="tokenizer_2", min_length=1)
    formula: Literal["paper"] = "paper"
    dtype: DType = "float32"
    device: Device = "auto"


class ProfileSettings(Section):
    """`[profiles.NAME]`: the cast of one run, each value the name of an entry."""

    generator: str
    verifier: str
    captioner: str
    proposer: str
    encoder: str
    candidates: int = Field(default=5, ge=1)
    description: str = ""


def listed(names: Iterable[str]) -> str:
    """Return names as a sentence lists them."""
    return ", ".join(sorted(names))

"""What models.toml may hold, table by table.

Leaves out: reading the file and wording its faults (`load`); whether a model directory is
complete (`generator`, `salience`, `backends`). Nothing heavy is imported here.
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

from npc_local.core.errors import ConfigError
from npc_local.core.files import paths

_BUILTIN = {"shapes": Path(__file__).resolve().parents[2] / "shapes" / "weights"}
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
    try:
        return Path(beside, paths.expanded(Path(value)))
    except ConfigError as error:
        raise ValueError(str(error)) from error


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
    pixels, `arguments` are further ones of the pipeline call. `more_devices` hold the model too and
    make images of other prompts at the same time; they must be of the same kind as `device`.
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
    more_devices: list[Device] = []
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


class ServerSettings(Section):
    """`[backends.NAME.server]`: a vLLM server that is started for the run and stopped with it.

    `python` is the interpreter of the environment that has vLLM (it pins its own torch); left out,
    the one that runs npc-local. `arguments` are further flags of the server, which runs in /: paths
    in them are absolute. `environment` are further variables; everything else of the user's is kept
    from it. Times are in seconds.
    """

    model: LocalPath
    python: LocalPath | None = None
    gpu_memory_utilization: float = Field(default=0.35, gt=0, le=1)
    max_model_len: int = Field(default=8192, ge=512)
    dtype: str = "auto"
    arguments: list[str] = []
    environment: dict[str, str] = {}
    start_timeout: float = Field(default=600, gt=0)
    restarts: int = Field(default=1, ge=0)
    sleep: bool = False


class ChatBackendSettings(Section):
    """`[backends.NAME]` with kind = "vllm" or "openai": a model behind OpenAI's chat protocol.

    Either `base_url` (a server that runs already, its address ending in /v1) or, for vLLM,
    `server`. `model` is the name that it is served by. `timeout` bounds one answer in seconds of
    wall clock, retries included. Images are shrunk to at most `max_pixels`. The key of an API is
    read from the environment variable that `api_key_env` names, never from this file.
    `image_factor` is the side in pixels of one visual token: 28 for Qwen2-VL and Qwen2.5-VL, 32 for
    Qwen3-VL. `temperature` is the first answer's, "omit" for a model that takes none; left out, it
    is 0, and sent to those models of OpenAI alone that are known to take it. `response_format` is
    how a server is told what an answer must be: "json_schema" as OpenAI has it, "json_object" with
    the schema beside it as llama-cpp-python does. An address beyond this machine needs kind =
    "openai" and `allow_network = true`.
    """

    kind: Literal["vllm", "openai"]
    model: str = Field(min_length=1)
    base_url: str | None = None
    server: ServerSettings | None = None
    api_key_env: str | None = None
    allow_network: bool = False
    timeout: float = Field(default=120, gt=0)
    retries: int = Field(default=3, ge=0)
    temperature: Annotated[float, Field(ge=0, le=2)] | Literal["omit"] | None = None
    max_pixels: int = Field(default=1_310_720, ge=4096)
    image_factor: Literal[28, 32] = 28
    response_format: Literal["json_schema", "json_object"] = "json_schema"
    extra_body: dict[str, Any] = {}

    @model_validator(mode="after")
    def _reachable(self) -> ChatBackendSettings:
        if self.kind == "openai" and self.server is not None:
            raise ValueError('server goes with kind = "vllm"')
        if (self.base_url is None) == (self.server is None):
            alternative = " or a server" if self.kind == "vllm" else ""
            raise ValueError(f"needs a base_url{alternative}, and not both")
        if self.allow_network and self.kind != "openai":
            raise ValueError('allow_network goes with kind = "openai"')
        return self


BackendSettings = ShapesBackendSettings | ScriptedBackendSettings | ChatBackendSettings


EncoderKind = Literal["t5", "clip", "decoder"]


class EncoderSettings(Section):
    """`[encoders.NAME]`: the text space that ranks the negatives, the formula, the salient tokens.

    `text_encoder` and `tokenizer` are folders in `path`, "." where they are one with it. `kind` is
    what the text encoder is: a T5, CLIP's text model, or a decoder such as Qwen. `spacy_model` is
    an installed model of English or its directory; left out, en_core_web_sm. `memory_gib` is what
    one forward pass may take beside the weights. `threads` are the CPU threads of its passes; left
    out, as torch decides.
    """

    kind: EncoderKind = "t5"
    path: LocalPath
    text_encoder: str = Field(default="text_encoder_2", min_length=1)
    tokenizer: str = Field(default="tokenizer_2", min_length=1)
    formula: Literal["paper", "released"] = "paper"
    tokens: Literal["auto", "released", "quantity", "parser"] = "auto"
    spacy_model: str | None = None
    dtype: DType = "float32"
    device: Device = "auto"
    memory_gib: float = Field(default=1.0, gt=0)
    threads: int | None = Field(default=None, ge=1)

    def is_held_by(self, generator: GeneratorSettings) -> bool:
        """Tell whether a generator has this very encoder in memory, as a part of its pipeline.

        Decoders it holds in a shape of its own, made for generating text; a CLIP may be changed by
        LoRAs.
        """
        wanted = self.path, self.dtype, self.device
        return (
            (self.kind == "t5" or (self.kind == "clip" and not generator.loras))
            and wanted == (generator.path, generator.dtype, generator.device)
            and self.is_pair()
        )

    def is_pair(self) -> bool:
        """Tell whether the folders are named as a pipeline names a pair: text_encoder_2, say."""
        number = self.text_encoder.removeprefix("text_encoder")
        return number != self.text_encoder and self.tokenizer == f"tokenizer{number}"


class ProfileSettings(Section):
    """`[profiles.NAME]`: the cast of one run, each value the name of an entry."""

    generator: str
    verifier: str
    captioner: str
    proposer: str
    encoder: str
    candidates: int = Field(default=5, ge=1, le=50)
    strictness: Literal["strict", "normal", "lenient"] = "normal"
    votes: int = Field(default=1, ge=1, le=15)
    proposals: Literal["caption", "prompt-only", "targeted-only", "untargeted-only"] = "caption"
    gpu: Literal["resident", "phased"] = "resident"
    description: str = ""


def listed(names: Iterable[str]) -> str:
    """Return names as a sentence lists them."""
    return ", ".join(sorted(names))

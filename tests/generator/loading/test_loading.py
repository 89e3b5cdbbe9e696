"""Every option of a generator's table, on real pipelines with tiny random weights."""

from __future__ import annotations

import functools
import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from npc_local.core.errors import (
    ConfigError,
    DeviceLostError,
    GeneratorError,
    ModelFilesError,
    NpcError,
)
from npc_local.core.records import Shot
from npc_local.generator.diffusers_generator import DiffusersGenerator
from npc_local.generator.loading import directory, loras, quantization
from npc_local.generator.loading import load as loading
from tests.generator.families import chroma, sd3, sdxl, z_image
from tests.generator.test_diffusers_generator import NEGATIVE, PROMPT, edit_index, one, settings

TRANSFORMER = Path("transformer", "diffusion_pytorch_model.safetensors")
GPU = "cuda:1"  # pretended


@pytest.fixture
def copied(flux_directory: Path, tmp_path: Path) -> Path:
    """A copy of the pipeline's directory, to be changed."""
    return Path(shutil.copytree(flux_directory, tmp_path / "copy"))


@pytest.fixture(scope="module")
def sdxl_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(sdxl.build(), tmp_path_factory)


@pytest.fixture(scope="module")
def sd3_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(sd3.build(), tmp_path_factory)


def saved(pipe: Any, places: pytest.TempPathFactory) -> Path:
    place = places.mktemp("models") / "tiny"
    pipe.save_pretrained(place, safe_serialization=True)
    return place


def other(path: Path, **changes: Any) -> Any:
    """Settings of a model without FLUX's own ones."""
    return settings(path, **({"guidance_scale": None, "max_sequence_length": None} | changes))


def refusal(kind: type[NpcError], wanted: Any) -> str:
    """Return why no image is made with these settings."""
    with pytest.raises(kind) as caught:
        one(DiffusersGenerator(wanted), NEGATIVE)
    assert type(caught.value) is kind
    return str(caught.value)


def pixels(wanted: Any) -> np.ndarray[Any, Any]:
    return np.frombuffer(one(DiffusersGenerator(wanted), NEGATIVE)[0], np.uint8).astype(int)


def difference(wanted: Any, plain: Any) -> float:
    """Return how far an image is from the plain one, of 255."""
    return float(np.abs(pixels(wanted) - pixels(plain)).mean())


def uninstall(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else real(name)
    )


# --- gguf ---


def write_gguf(file: Path, tensors: dict[str, torch.Tensor], kind: str) -> Path:
    gguf = pytest.importorskip("gguf", reason="GGUF needs npc-local[quantization]")
    bits = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(file, "flux")
    for name, tensor in tensors.items():
        values = tensor.float().numpy()
        if tensor.ndim < 2 or tensor.shape[-1] % 32:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, bits), raw_dtype=bits)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("F32", 0, 0), ("F16", 0, 0.1), ("Q8_0", 0.001, 0.5)]
)
def test_a_gguf_file_takes_the_place_of_the_denoiser(
    flux_directory: Path, copied: Path, tmp_path: Path, kind: str, least: float, most: float
) -> None:
    file = write_gguf(tmp_path / "x.gguf", load_file(copied / TRANSFORMER), kind)
    (copied / TRANSFORMER).unlink()
    far = difference(settings(copied, gguf=file), settings(flux_directory))
    assert least <= far <= most
    assert pixels(settings(copied, gguf=file, dtype="bfloat16")).any()


@pytest.mark.parametrize("damage", ["cut", "no gguf", "a tensor less", "other names"])
def test_an_unusable_gguf_file_is_named(flux_directory: Path, tmp_path: Path, damage: str) -> None:
    tensors = load_file(flux_directory / TRANSFORMER)
    if damage == "a tensor less":
        del tensors["proj_out.bias"]
    if damage == "other names":
        tensors = {"blk.0.attn_q.weight": torch.ones(2, 2)}
    file = write_gguf(tmp_path / "x.gguf", tensors, "F32")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:20000])
    if damage == "no gguf":
        file.write_bytes(b"hello" * 9)
    message = refusal(ModelFilesError, settings(flux_directory, gguf=file))
    assert message.startswith(f"{file}: damaged, or not ")


def test_a_gguf_file_must_be_there_and_be_called_one(flux_directory: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    with pytest.raises(ModelFilesError, match=r"x\.gguf: no such file"):
        DiffusersGenerator(settings(flux_directory, gguf=file))
    file.with_suffix(".ckpt").write_bytes(b"a pickle")
    with pytest.raises(ModelFilesError, match=r"must be a \.gguf file"):
        DiffusersGenerator(settings(flux_directory, gguf=file.with_suffix(".ckpt")))


# --- quantization ---


@pytest.mark.parametrize("components", [["transformer"], ["transformer", "text_encoder_2"]])
def test_torchao_quantises_on_the_cpu(flux_directory: Path, components: list[str]) -> None:
    pytest.importorskip("torchao", reason="torchao needs npc-local[quantization]")
    wanted = settings(
        flux_directory, quantization={"kind": "torchao_int8", "components": components}
    )
    assert 0 < difference(wanted, settings(flux_directory)) < 2
    pipe = DiffusersGenerator(wanted).pipe
    for name in ("transformer", "text_encoder_2"):
        weights = [type(weight).__name__ for weight in getattr(pipe, name).parameters()]
        assert any("Int8" in weight for weight in weights) is (name in components)


@pytest.mark.parametrize("kind", ["bitsandbytes_8bit", "bitsandbytes_4bit", "torchao_float8"])
def test_quantisers_that_need_a_gpu_are_refused_without(flux_directory: Path, kind: str) -> None:
    message = refusal(ConfigError, settings(flux_directory, quantization={"kind": kind}))
    assert "needs a GPU; use 'torchao_int8'" in message


@pytest.mark.parametrize("part", ["transformer", "text_encoder_2"])
@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("torchao_int8", {"group": 8}),
        ("bitsandbytes_8bit", {"llm_int8": 6.0}),
        ("bitsandbytes_4bit", {"load_in_8bit": True}),
    ],
)
def test_an_unknown_quantiser_option_is_refused_with_the_known(
    flux_directory: Path, part: str, kind: str, option: dict[str, Any]
) -> None:
    pytest.importorskip(kind.split("_")[0], reason="needs npc-local[quantization]")
    table = {"kind": kind, "components": [part], "options": option}
    wanted = settings(flux_directory, quantization=table, device=GPU)
    index = json.loads((flux_directory / "model_index.json").read_text())
    with pytest.raises(ConfigError, match=rf"no option '{next(iter(option))}', there are \w+"):
        quantization.quantization(wanted, index, torch.bfloat16)


@pytest.mark.parametrize(
    ("kind", "option", "classes"),
    [
        ("bitsandbytes_8bit", {"llm_int8_threshold": 5.0}, ["load_in_8bit"]),
        ("bitsandbytes_4bit", {"bnb_4bit_quant_type": "nf4"}, ["load_in_4bit"]),
    ],
)
def test_bitsandbytes_gets_its_options(
    flux_directory: Path, kind: str, option: dict[str, Any], classes: list[str]
) -> None:
    pytest.importorskip("bitsandbytes", reason="needs npc-local[quantization]")
    table = {"kind": kind, "components": ["transformer", "text_encoder_2"], "options": option}
    wanted = settings(flux_directory, quantization=table, device=GPU)
    index = json.loads((flux_directory / "model_index.json").read_text())
    for config in quantization.quantization(wanted, index, torch.bfloat16).quant_mapping.values():
        made = config.to_dict()
        assert all(made[name] for name in classes)
        assert option.items() <= made.items()


def test_an_unknown_component_is_refused_with_the_known(flux_directory: Path) -> None:
    table = {"kind": "torchao_int8", "components": ["unet"]}
    message = refusal(ConfigError, settings(flux_directory, quantization=table))
    assert "no component 'unet'" in message
    assert "text_encoder_2, tokenizer" in message


@pytest.mark.parametrize(
    ("package", "extra", "change"),
    [
        ("gguf", "quantization", {"gguf": "x.gguf"}),
        ("torchao", "quantization", {"quantization": {"kind": "torchao_int8"}}),
        ("bitsandbytes", "quantization", {"quantization": {"kind": "bitsandbytes_4bit"}}),
        ("peft", "lora", {"loras": [{"path": "a.safetensors"}]}),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    flux_directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    extra: str,
    change: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    (tmp_path / "a.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    uninstall(package, monkeypatch)
    if package == "bitsandbytes":
        for module in (loading, quantization):
            monkeypatch.setattr(module, "resolve_device", lambda _: GPU)
        monkeypatch.setattr(loading, "_check_dtype", lambda *_: None)
    message = refusal(ConfigError, settings(flux_directory, **change))
    assert f"needs {package}, which is not installed: pip install 'npc-local[{extra}]'" in message


# --- loras ---

FITS = ("transformer.transformer_blocks.0.attn.to_q", "transformer.proj_out")


def write_lora(
    file: Path, changed: Sequence[str] = FITS, width: int = 32, seed: int = 0
) -> dict[str, Any]:
    noise = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in changed:
        tensors[f"{name}.lora_A.weight"] = torch.randn(4, width, generator=noise)
        out = 16 if name.endswith("proj_out") else width
        tensors[f"{name}.lora_B.weight"] = torch.randn(out, 4, generator=noise)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    return {"path": file}


def test_loras_act_with_their_weights(flux_directory: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRAs need npc-local[lora]")
    a, b = write_lora(tmp_path / "a" / "a.safetensors"), write_lora(tmp_path / "b.st.safetensors")
    write_lora(b["path"], seed=1)
    in_directory = {"path": tmp_path / "a"}

    def made(*loras: dict[str, Any]) -> bytes:
        return pixels(settings(flux_directory, loras=list(loras))).tobytes()

    plain = made()
    assert made(a | {"weight": 0.0}) == made(a | {"weight": 0.0}, b | {"weight": 0.0}) == plain
    assert made(a) == made(in_directory) == made(a, b | {"weight": 0.0})
    assert len({plain, made(a), made(b), made(a | {"weight": 0.5}), made(a, b)}) == 5


@pytest.mark.parametrize(
    "changed",
    [
        ["transformer_blocks.0.attn.to_q"],
        ["unet.down_blocks.0.attn.to_q"],
        ["transformer.blocks.0.q"],
        [FITS[0], "transformer.transformer_blocks.7.attn.to_q"],
    ],
    ids=["no prefix", "another model", "other names", "a block too many"],
)
def test_a_lora_that_does_not_match_is_refused(
    flux_directory: Path, tmp_path: Path, changed: list[str]
) -> None:
    pytest.importorskip("peft", reason="LoRAs need npc-local[lora]")
    lora = write_lora(tmp_path / "x.safetensors", changed)
    message = refusal(ModelFilesError, settings(flux_directory, loras=[lora]))
    assert message.startswith(str(lora["path"]))


LAYER = "transformer.transformer_blocks.0.attn.to_q"
KOHYA = "lora_unet_double_blocks_0_img_attn_proj"


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def peft_pair(layer: str, width: int = 32) -> dict[str, torch.Tensor]:
    return {f"{layer}.lora_A.weight": drawn(4, width), f"{layer}.lora_B.weight": drawn(width, 4)}


def kohya_pair(layer: str, width: int = 32) -> dict[str, torch.Tensor]:
    """A layer as sd-scripts writes it, with a scale that is not 1."""
    return {
        f"{layer}.lora_down.weight": drawn(4, width),
        f"{layer}.lora_up.weight": drawn(width, 4),
        f"{layer}.alpha": torch.tensor(2.0),
    }


CLIP = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
TAKEN = {
    "peft": peft_pair(LAYER),
    "peft with a magnitude of DoRA": peft_pair(LAYER)
    | {f"{LAYER}.lora_magnitude_vector": torch.full((32,), 3.0)},
    "peft with scales": peft_pair(LAYER) | {f"{LAYER}.alpha": torch.tensor(2.0)},
    "peft for two models": peft_pair(LAYER) | peft_pair(CLIP, 24),
    "two layers that are zero": {
        name: torch.zeros_like(tensor)
        for layer in (LAYER, LAYER.replace("to_q", "to_k"))
        for name, tensor in peft_pair(layer).items()
    },
    "sd-scripts": kohya_pair(KOHYA),
    # One tensor of the file becomes three of the model's.
    "sd-scripts, query, key and value in one": {
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": drawn(4, 32),
        "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": drawn(96, 4),
        "lora_unet_double_blocks_0_img_attn_qkv.alpha": torch.tensor(2.0),
    },
}
LEFT_OUT = {
    "a layer that the model has not": peft_pair("transformer.transformer_blocks.7.attn.to_q"),
    "a zero layer that the model has not": {
        name: torch.zeros_like(tensor)
        for name, tensor in peft_pair("transformer.transformer_blocks.7.attn.to_q").items()
    },
    "an encoder that takes none": peft_pair("text_encoder_2.encoder.block.0.layer.0.q"),
    "a layer of an encoder that it has not": peft_pair(CLIP.replace("layers.0", "layers.7"), 24),
    "another part": peft_pair("prior.layers.0.q"),
    "no part": peft_pair("layers.0.q"),
    "a scale of no layer": {"transformer.transformer_blocks.7.attn.to_q.alpha": torch.tensor(1.0)},
    "an embedding": {"bundle_emb.clip_l": drawn(2, 32)},
    "the model's own weights": {"transformer.proj_out.weight": drawn(16, 32)},
}
LEFT_OUT_BY_KOHYA = {
    "a block that the model has not": kohya_pair("lora_unet_double_blocks_7_img_attn_proj"),
    "a single block that the model has not": kohya_pair("lora_unet_single_blocks_7_modulation_lin"),
    "the scale of DoRA": {f"{KOHYA}.dora_scale": torch.full((32, 1), 40.0)},
}


@pytest.mark.parametrize("what", TAKEN)
def test_a_lora_that_is_taken_whole_acts(flux_directory: Path, tmp_path: Path, what: str) -> None:
    pytest.importorskip("peft", reason="LoRAs need npc-local[lora]")
    file = tmp_path / "x.safetensors"
    save_file(TAKEN[what], file)
    far = difference(settings(flux_directory, loras=[{"path": file}]), settings(flux_directory))
    assert (far > 0) is ("zero" not in what)


@pytest.mark.parametrize(
    ("whole", "part"),
    [
        *((TAKEN["peft"], part) for part in LEFT_OUT.values()),
        *((TAKEN["sd-scripts"], part) for part in LEFT_OUT_BY_KOHYA.values()),
        ({}, {f"{LAYER}.lora_A.weight": drawn(4, 32)}),
        ({}, {f"{LAYER}.lora_B.weight": drawn(32, 4)}),
    ],
    ids=[*LEFT_OUT, *LEFT_OUT_BY_KOHYA, "a layer without its up", "a layer without its down"],
)
def test_a_lora_of_which_a_part_would_not_act_is_refused_by_name(
    flux_directory: Path,
    tmp_path: Path,
    whole: dict[str, torch.Tensor],
    part: dict[str, torch.Tensor],
) -> None:
    pytest.importorskip("peft", reason="LoRAs need npc-local[lora]")
    file = tmp_path / "x.safetensors"
    save_file(whole | part, file)
    message = refusal(ModelFilesError, settings(flux_directory, loras=[{"path": file}]))
    assert message.startswith(str(file))
    if whole:
        assert min(part) in message


@pytest.mark.parametrize("damage", ["cut", "other width", "no lora", "a whole model"])
def test_a_file_that_is_no_lora_is_refused(
    flux_directory: Path, tmp_path: Path, damage: str
) -> None:
    pytest.importorskip("peft", reason="LoRAs need npc-local[lora]")
    file = tmp_path / "x.safetensors"
    write_lora(file, width=64 if damage == "other width" else 32)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:300])
    if damage == "no lora":
        save_file({"x": torch.ones(2)}, file)
    if damage == "a whole model":
        shutil.copy(flux_directory / TRANSFORMER, file)
    message = refusal(ModelFilesError, settings(flux_directory, loras=[{"path": file}]))
    assert message.startswith(str(file))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "found: none"),
        (["a.safetensors", "b.safetensors"], r"found: a\.safetensors, b\.safetensors"),
        (["a.bin"], "found: none"),
        (None, "no such file or directory"),
    ],
)
def test_a_lora_directory_must_hold_one_lora(
    flux_directory: Path, tmp_path: Path, names: list[str] | None, message: str
) -> None:
    place = tmp_path / "lora"
    for name in names or []:
        write_lora(place / name)
    if names == []:
        place.mkdir()
    with pytest.raises(ModelFilesError, match=message):
        DiffusersGenerator(settings(flux_directory, loras=[{"path": place}]))


def test_a_pickled_lora_is_refused(flux_directory: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"a pickle")
    with pytest.raises(ModelFilesError, match=r"must be a \.safetensors file"):
        DiffusersGenerator(settings(flux_directory, loras=[{"path": file}]))


def test_loras_of_a_unet_act(sdxl_directory: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRAs need npc-local[lora]")
    query = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    lora = write_lora(tmp_path / "a.safetensors", [f"unet.{query}"], width=16)
    assert difference(other(sdxl_directory, loras=[lora]), other(sdxl_directory)) > 0
    lora = write_lora(tmp_path / "a.safetensors", [f"unet.{query}", "unet.x.to_q"], width=16)
    message = refusal(ModelFilesError, other(sdxl_directory, loras=[lora]))
    assert "nothing here matches unet.x.to_q" in message


def test_a_pipeline_that_takes_no_loras_says_so(
    flux_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft", reason="LoRAs need npc-local[lora]")
    with pytest.raises(ConfigError, match="loras: object cannot load any"):
        loras.add_loras(
            object(), settings(flux_directory, loras=[write_lora(tmp_path / "a.safetensors")]).loras
        )


# --- distilled checkpoints ---


def distilled(flux: Path, where: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    def gguf() -> dict[str, Any]:
        file = where / "flux1-schnell-Q4.gguf"
        file.write_bytes(b"GGUF")
        return {"gguf": file}

    return {
        "directory": lambda: {"path": shutil.copytree(flux, where / "FLUX.1-schnell-copy")},
        "gguf": gguf,
        "lora": lambda: {"loras": [write_lora(where / "Hyper-FLUX-8steps.safetensors")]},
        "lora in a directory": lambda: {
            "loras": [{"path": write_lora(where / "l" / "turbo_lora.safetensors")["path"].parent}]
        },
    }


@pytest.mark.parametrize("what", ["directory", "gguf", "lora", "lora in a directory"])
def test_distilled_names_are_refused_unless_allowed(
    flux_directory: Path, tmp_path: Path, what: str
) -> None:
    changes = distilled(flux_directory, tmp_path)[what]()
    path = changes.pop("path", flux_directory)
    with pytest.raises(ConfigError, match=r"distilled.*it is called"):
        DiffusersGenerator(settings(path, **changes))
    DiffusersGenerator(settings(path, allow_distilled=True, **changes))


def test_a_distilled_directory_that_is_allowed_makes_images(
    flux_directory: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(flux_directory, tmp_path / "FLUX.1-schnell-copy")
    allowed = settings(path, allow_distilled=True)
    assert difference(allowed, settings(flux_directory)) == 0


# --- speed and memory ---


@pytest.mark.parametrize("backend", ["native", "_native_math"])
def test_attention_backends_agree(flux_directory: Path, backend: str) -> None:
    wanted = settings(flux_directory, attention=backend)
    assert difference(wanted, settings(flux_directory)) < 0.05
    attention = DiffusersGenerator(wanted).pipe.transformer.transformer_blocks[0].attn
    assert attention.processor._attention_backend.value == backend


def test_an_attention_backend_is_chosen_for_its_own_model_only(flux_directory: Path) -> None:
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    _ = DiffusersGenerator(settings(flux_directory, attention="_native_math")).pipe
    assert _AttentionBackendRegistry.get_active_backend()[0].value == "native"


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("fast", "choose one of .*native"),
        ("_flash_3_hub", "fetched from the hub"),
        ("flash", "flash-attn"),
        ("sage", "sageattention"),
        ("_native_cudnn", "No viable backend"),
    ],
)
def test_attention_backends_that_cannot_work_are_refused(
    flux_directory: Path, backend: str, message: str
) -> None:
    generator = DiffusersGenerator(settings(flux_directory, attention=backend))
    with pytest.raises(ConfigError, match=rf"attention = '{backend}'.*{message}"):
        _ = generator.pipe


@pytest.mark.parametrize("family", [chroma, z_image])
def test_an_attention_backend_that_takes_no_mask_is_refused_for_a_family_that_has_one(
    tmp_path: Path, family: Any
) -> None:
    case = family.CASE
    family.build().save_pretrained(tmp_path / "model", safe_serialization=True)
    sizes = {name: case.arguments[name] for name in ("height", "width")}
    for backend in ("native", "_native_math"):
        wanted = other(tmp_path / "model", attention=backend, **sizes)
        generator = DiffusersGenerator(wanted)
        case.shorten(generator.pipe)
        assert one(generator, NEGATIVE)[0]
    wanted = other(tmp_path / "model", attention="_native_flash", **sizes)
    with pytest.raises(ConfigError, match=r"attention = '_native_flash'.*`attn_mask` is not"):
        _ = DiffusersGenerator(wanted).pipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention": "native"}, "SD3Transformer2DModel takes none"),
        ({"compile": True}, "compile = true does not fit"),
        ({"cache": {"kind": "first-block"}}, "cache: kind = 'first-block'.*leave cache out"),
    ],
)
def test_options_that_a_family_has_not_are_refused(
    sd3_directory: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        _ = DiffusersGenerator(other(sd3_directory, **change)).pipe


def test_compiled_blocks_draw_the_same_image(flux_directory: Path) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except RuntimeError:
        pytest.skip("compile = true needs a C++ compiler")
    wanted = settings(flux_directory, compile=True)
    assert difference(wanted, settings(flux_directory)) < 0.05
    block = DiffusersGenerator(wanted).pipe.transformer.transformer_blocks[0]
    assert block._compiled_call_impl is not None


def test_compiling_without_a_compiler_is_refused(
    flux_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none)
    message = refusal(ConfigError, settings(flux_directory, compile=True))
    assert message.endswith("No working C++ compiler found")


@pytest.mark.parametrize("offload", ["model", "group", "sequential"])
def test_offloading_is_refused_on_the_cpu(flux_directory: Path, offload: str) -> None:
    message = refusal(ConfigError, settings(flux_directory, offload=offload))
    assert f"offload = '{offload}' needs a GPU" in message


@pytest.mark.parametrize(
    ("offload", "method", "arguments"),
    [
        ("none", "to", (GPU,)),
        ("model", "enable_model_cpu_offload", {"device": GPU}),
        ("sequential", "enable_sequential_cpu_offload", {"device": GPU}),
        (
            "group",
            "enable_group_offload",
            {
                "onload_device": torch.device(GPU),
                "offload_type": "leaf_level",
                "use_stream": True,
            },
        ),
    ],
)
def test_offloading_is_left_to_diffusers(
    flux_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    offload: str,
    method: str,
    arguments: Any,
) -> None:
    import diffusers

    monkeypatch.setattr(loading, "_check_dtype", lambda *_: None)
    placed = {
        name: mock.create_autospec(getattr(diffusers.FluxPipeline, name))
        for name in (
            "to",
            "enable_model_cpu_offload",
            "enable_sequential_cpu_offload",
            "enable_group_offload",
        )
    }
    for name, call in placed.items():
        monkeypatch.setattr(diffusers.FluxPipeline, name, call)
    pipe = DiffusersGenerator(settings(flux_directory, offload=offload, device=GPU)).pipe
    if isinstance(arguments, tuple):
        placed[method].assert_called_once_with(pipe, *arguments)
    else:
        placed[method].assert_called_once_with(pipe, **arguments)
    assert [name for name, call in placed.items() if call.called] == [method]


def test_a_model_larger_than_the_memory_says_what_to_do(
    flux_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers

    full = mock.Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory"))
    monkeypatch.setattr(diffusers.FluxPipeline, "to", full)
    message = refusal(ConfigError, settings(flux_directory))
    assert "does not fit into the memory of 'cpu'" in message
    assert "offload = 'model'" in message


@pytest.mark.parametrize("where", ["to", "from_pretrained"])
@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (torch.AcceleratorError("CUDA error: out of memory"), ConfigError, "quantization"),
        (MemoryError(), ConfigError, "quantization"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ConfigError, "quantization"),
        (RuntimeError("CUDA error: uncorrectable ECC error"), DeviceLostError, "the GPU failed"),
    ],
)
def test_memory_and_a_lost_gpu_are_told_by_any_name_while_loading(
    flux_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    failure: Exception,
    kind: type[NpcError],
    message: str,
) -> None:
    import diffusers

    monkeypatch.setattr(diffusers.FluxPipeline, where, mock.Mock(side_effect=failure))
    assert message in refusal(kind, settings(flux_directory))


def test_a_gpu_that_is_lost_is_no_dtype_that_it_lacks(
    flux_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = mock.Mock(side_effect=RuntimeError("CUDA error: unspecified launch failure"))
    monkeypatch.setattr(torch.nn.functional, "conv2d", lost)
    assert "the GPU failed" in refusal(DeviceLostError, settings(flux_directory))


def test_the_autoencoder_decodes_in_tiles(
    flux_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers

    assert DiffusersGenerator(settings(flux_directory, vae_tiling=True)).pipe.vae.use_tiling
    assert not DiffusersGenerator(settings(flux_directory)).pipe.vae.use_tiling

    untiled = mock.Mock(side_effect=NotImplementedError("AutoencoderKL cannot"))
    monkeypatch.setattr(diffusers.AutoencoderKL, "enable_tiling", untiled)
    message = refusal(ConfigError, settings(flux_directory, vae_tiling=True))
    assert message.startswith("vae_tiling = true does not fit")


# --- cache ---

STEPS, EARLY = 8, 2


def cached(path: Path, kind: str | None, threshold: float = 99.0) -> Any:
    cache = None if kind is None else {"kind": kind, "threshold": threshold}
    return settings(path, steps=STEPS, negative_steps=EARLY, cache=cache)


@pytest.fixture
def latents(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What each scheduler step returns."""
    import diffusers

    kept: list[torch.Tensor] = []
    step = diffusers.FlowMatchEulerDiscreteScheduler.step

    @functools.wraps(step)
    def recorded(*args: Any, **options: Any) -> Any:
        result = step(*args, **options)
        kept.append(result[0].clone())
        return result

    monkeypatch.setattr(diffusers.FlowMatchEulerDiscreteScheduler, "step", recorded)
    return kept


def forwards(generator: DiffusersGenerator, negative: str | None = NEGATIVE) -> int:
    """Make an image and return how often the last block was computed."""
    count = 0

    def counted(*_: Any) -> None:
        nonlocal count
        count += 1

    block = generator.pipe.transformer.single_transformer_blocks[-1]
    hook = block.attn.register_forward_pre_hook(counted)
    one(generator, negative)
    hook.remove()
    return count


@pytest.mark.parametrize("kind", ["mag", "first-block"])
def test_the_cache_skips_late_steps_only(
    flux_directory: Path, latents: list[torch.Tensor], kind: str
) -> None:
    plain = forwards(DiffusersGenerator(cached(flux_directory, None)))
    without = latents.copy()
    latents.clear()
    assert plain == STEPS + EARLY
    assert forwards(DiffusersGenerator(cached(flux_directory, kind))) < plain
    assert all(torch.equal(*pair) for pair in zip(latents[:EARLY], without[:EARLY], strict=True))
    assert not torch.equal(latents[-1], without[-1])


# One of mag's ratios is exactly 1: the step that it expects to change nothing.
@pytest.mark.parametrize(("kind", "skipped"), [("mag", 1), ("first-block", 0)])
def test_a_small_threshold_skips_what_changes_nothing(
    flux_directory: Path, kind: str, skipped: int
) -> None:
    wanted = cached(flux_directory, kind, threshold=1e-9)
    assert forwards(DiffusersGenerator(wanted)) == STEPS + EARLY - skipped
    assert (difference(wanted, cached(flux_directory, None)) == 0) is (skipped == 0)


@pytest.mark.parametrize("after", ["off", "null"])
@pytest.mark.parametrize("kind", ["mag", "first-block"])
def test_a_cache_leaves_nothing_behind(
    flux_directory: Path, monkeypatch: pytest.MonkeyPatch, kind: str, after: str
) -> None:
    wanted = cached(flux_directory, kind).model_copy(update={"after": after})
    shots = [Shot(PROMPT, NEGATIVE, seed) for seed in (1, 2)] + [Shot("a clock", None, 3)]
    alone = [DiffusersGenerator(wanted).generate(shot).image.tobytes() for shot in shots]
    generator = DiffusersGenerator(wanted)
    assert [made.image.tobytes() for made in map(generator.generate, shots)] == alone
    assert not generator.pipe.transformer.is_cache_enabled
    with monkeypatch.context() as patch:
        patch.setattr(generator.pipe.vae, "decode", mock.Mock(side_effect=ValueError("broken")))
        with pytest.raises(GeneratorError, match="broken"):
            generator.generate(shots[0])
    assert not generator.pipe.transformer.is_cache_enabled
    assert generator.generate(shots[1]).image.tobytes() == alone[1]


def test_mag_gets_the_ratios_of_the_late_steps(flux_directory: Path) -> None:
    from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS

    wanted = settings(
        flux_directory, steps=28, negative_steps=3, cache={"kind": "mag", "threshold": 0.1}
    )
    make = loading.late_cache(wanted, directory.check_directory(wanted)[0])
    assert make is not None
    config = make()
    assert (config.threshold, config.num_inference_steps) == (0.1, 25)
    assert torch.equal(config.mag_ratios, FLUX_MAG_RATIOS[3:])


def test_a_cache_that_diffusers_has_no_blocks_for_is_refused(
    flux_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.hooks._helpers import TransformerBlockRegistry

    unknown = mock.Mock(side_effect=ValueError("Model class FluxTransformerBlock not registered."))
    monkeypatch.setattr(TransformerBlockRegistry, "get", unknown)
    message = refusal(ConfigError, cached(flux_directory, "first-block"))
    assert message.startswith("cache: kind = 'first-block' does not fit this model")


def test_a_cache_for_no_late_step_is_none(flux_directory: Path) -> None:
    wanted = settings(flux_directory, negative_steps=4, cache={"kind": "mag", "threshold": 99.0})
    assert loading.late_cache(wanted, directory.check_directory(wanted)[0]) is None
    assert difference(wanted, settings(flux_directory, negative_steps=4)) == 0


def test_mag_is_for_flux_only(sd3_directory: Path) -> None:
    family, _ = directory.check_directory(other(sd3_directory))
    wanted = other(sd3_directory, cache={"kind": "mag"})
    with pytest.raises(ConfigError, match="leave cache out"):
        loading.late_cache(wanted, family)


# --- dtype, device, threads ---


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_short_dtypes_work_on_the_cpu(flux_directory: Path, dtype: str) -> None:
    wanted = settings(flux_directory, dtype=dtype)
    assert difference(wanted, settings(flux_directory)) < 3
    assert DiffusersGenerator(wanted).pipe.transformer.dtype == getattr(torch, dtype)


@pytest.mark.parametrize("lacking", ["float32", "bfloat16"])
def test_a_machine_that_lacks_a_dtype_is_refused(
    flux_directory: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    compute = torch.nn.functional.conv2d

    def conv2d(image: torch.Tensor, *rest: Any) -> Any:
        if image.dtype == getattr(torch, lacking):
            raise RuntimeError("not implemented for 'Lacking'")
        return compute(image, *rest)

    monkeypatch.setattr(torch.nn.functional, "conv2d", conv2d)
    message = refusal(ConfigError, settings(flux_directory, dtype="bfloat16"))
    what = "device 'cpu'" if lacking == "float32" else "dtype bfloat16 on 'cpu'"
    assert message.startswith(f"{what} cannot be used: not implemented")


def test_images_are_made_with_so_many_threads_and_nothing_else(flux_directory: Path) -> None:
    before = torch.get_num_threads()
    generator = DiffusersGenerator(settings(flux_directory, threads=before + 1))
    seen = set()
    generator.generate(Shot("a cat", None, 0), lambda *_: seen.add(torch.get_num_threads()))
    assert seen == {before + 1}
    assert torch.get_num_threads() == before


# --- files ---


def test_weights_in_pickles_only_are_refused(copied: Path) -> None:
    (copied / TRANSFORMER).rename((copied / TRANSFORMER).with_suffix(".bin"))
    with pytest.raises(ModelFilesError, match=r"\.bin: pickled weights are not loaded"):
        DiffusersGenerator(settings(copied))


def test_sharded_weights_are_read(flux_directory: Path, copied: Path) -> None:
    import diffusers

    model = diffusers.FluxTransformer2DModel.from_pretrained(copied, subfolder="transformer")
    (copied / TRANSFORMER).unlink()
    model.save_pretrained(copied / "transformer", max_shard_size="20KB")
    assert len([*(copied / "transformer").glob("*.safetensors")]) > 1
    assert difference(settings(copied), settings(flux_directory)) == 0


@pytest.fixture(params=["one file each", "shards", "one folder"])
def fp16_directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory that holds fp16 weights only: whole, in shards, or in one folder of several."""
    pipe = sdxl.build()
    pipe.to(torch.float16)
    if request.param == "one folder":
        pipe.save_pretrained(tmp_path / "m", safe_serialization=True)
        shutil.rmtree(tmp_path / "m" / "unet")
        pipe.unet.save_pretrained(tmp_path / "m" / "unet", variant="fp16")
    else:
        shards = {"max_shard_size": "20KB"} if request.param == "shards" else {}
        pipe.save_pretrained(tmp_path / "m", variant="fp16", safe_serialization=True, **shards)
    return tmp_path / "m"


def test_a_directory_of_fp16_variants_is_loaded(fp16_directory: Path) -> None:
    assert [*fp16_directory.glob("unet/*.fp16*.safetensors")]
    assert not [*fp16_directory.glob("unet/*model.safetensors")]
    wanted = other(fp16_directory, dtype="float16")
    assert pixels(wanted).any()


@pytest.mark.parametrize("fp16_directory", ["shards"], indirect=True)
def test_a_shard_of_a_variant_that_is_missing_is_named(fp16_directory: Path) -> None:
    shard = next(fp16_directory.glob("unet/*-of-*.safetensors"))
    shard.unlink()
    with pytest.raises(ModelFilesError, match=f"{shard.name}: missing"):
        DiffusersGenerator(other(fp16_directory))


def as_variant(folder: Path, variant: str) -> None:
    for file in folder.glob("*.safetensors"):
        file.rename(file.with_name(f"{file.stem}.{variant}.safetensors"))


@pytest.mark.parametrize("variant", ["fp16", "bf16", "ema"])
def test_any_one_variant_is_loaded(copied: Path, flux_directory: Path, variant: str) -> None:
    as_variant(copied / "transformer", variant)
    as_variant(copied / "vae", variant)
    assert difference(settings(copied), settings(flux_directory)) == 0


def test_folders_of_different_variants_are_refused(copied: Path) -> None:
    as_variant(copied / "transformer", "fp16")
    as_variant(copied / "vae", "bf16")
    with pytest.raises(ModelFilesError, match=r"transformer: fp16 and vae: bf16"):
        DiffusersGenerator(settings(copied))


def test_weights_of_other_names_are_refused_at_once(copied: Path) -> None:
    (copied / TRANSFORMER).rename(copied / "transformer" / "flux1-dev.safetensors")
    with pytest.raises(ModelFilesError, match=r"flux1-dev\.safetensors: weights of this name"):
        DiffusersGenerator(settings(copied))


def test_a_pipeline_without_negatives_is_refused_with_another(copied: Path) -> None:
    edit_index(copied, _class_name="Flux2Pipeline")
    with pytest.raises(ConfigError, match=r"model_index\.json: Flux2Pipeline.*use FLUX\.2-klein"):
        DiffusersGenerator(settings(copied))


def test_a_component_class_that_diffusers_has_not_is_refused(copied: Path) -> None:
    edit_index(copied, transformer=["diffusers", "NoSuchModel"])
    assert "cannot be loaded" in refusal(ModelFilesError, settings(copied))


@pytest.mark.parametrize("entry", [[2, 5], [None, None], ["a"], True])
def test_settings_of_a_pipeline_itself_are_no_components(copied: Path, entry: object) -> None:
    edit_index(copied, layers=entry)
    assert "layers" not in directory.check_directory(settings(copied))[1]


# --- call arguments ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arguments": {"eta_": 1}}, "takes no argument 'eta_'"),
        ({"arguments": {"prompt": "x"}}, "argument 'prompt' is set for each image"),
        ({"arguments": {"pipe": 3.0}}, "a pipeline call takes no pipe"),
        ({"guidance_scale": 3.5}, "guidance_scale: Stable Diffusion XL takes none"),
        ({"max_sequence_length": 77}, "takes no argument 'max_sequence_length'"),
    ],
)
def test_arguments_that_a_pipeline_does_not_take_are_refused(
    sdxl_directory: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        _ = DiffusersGenerator(other(sdxl_directory, **change)).pipe


def test_further_arguments_reach_the_pipeline(sdxl_directory: Path) -> None:
    wanted = other(sdxl_directory, arguments={"crops_coords_top_left": (64, 64)})
    assert difference(wanted, other(sdxl_directory)) > 0

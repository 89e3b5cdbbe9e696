"""Weights in fewer bits: GGUF files and quantisers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from npc_local.core.errors import (
    ConfigError,
    ModelFilesError,
)
from npc_local.generator.diffusers_generator import DiffusersGenerator
from npc_local.generator.loading import quantization
from tests.generator.images import settings
from tests.generator.loading.models import (
    GPU,
    TRANSFORMER,
    difference,
    pixels,
    refusal,
)


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

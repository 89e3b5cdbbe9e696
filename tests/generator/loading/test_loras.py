"""LoRA files: each acts whole, or is refused by what would not act."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from npc_local.core.errors import (
    ConfigError,
    ModelFilesError,
)
from npc_local.generator.diffusers_generator import DiffusersGenerator
from npc_local.generator.loading import loras
from tests.generator.images import settings
from tests.generator.loading.models import (
    TRANSFORMER,
    difference,
    other,
    pixels,
    refusal,
    write_lora,
)

LAYER = "transformer.transformer_blocks.0.attn.to_q"


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
        [LAYER, "transformer.transformer_blocks.7.attn.to_q"],
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


KOHYA = "lora_unet_double_blocks_0_img_attn_proj"


def drawn(name: str, *shape: int) -> torch.Tensor:
    """Return a tensor that is equal to none of another name."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))


def pair(layer: str, down: str, up: str, width: int) -> dict[str, torch.Tensor]:
    ends = {f"{layer}.{down}.weight": (4, width), f"{layer}.{up}.weight": (width, 4)}
    return {name: drawn(name, *shape) for name, shape in ends.items()}


def peft_pair(layer: str, width: int = 32) -> dict[str, torch.Tensor]:
    return pair(layer, "lora_A", "lora_B", width)


def kohya_pair(layer: str, width: int = 32) -> dict[str, torch.Tensor]:
    """A layer as sd-scripts writes it, with a scale that is not 1."""
    return pair(layer, "lora_down", "lora_up", width) | {f"{layer}.alpha": torch.tensor(2.0)}


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
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": drawn("x", 4, 32),
        "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": drawn("x", 96, 4),
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
    "an embedding": {"bundle_emb.clip_l": drawn("x", 2, 32)},
    "the model's own weights": {"transformer.proj_out.weight": drawn("x", 16, 32)},
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
        ({}, {f"{LAYER}.lora_A.weight": drawn("x", 4, 32)}),
        ({}, {f"{LAYER}.lora_B.weight": drawn("x", 32, 4)}),
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


def test_a_file_of_sd_scripts_for_a_unet_and_its_encoders_is_taken_whole_or_refused(
    sdxl_directory: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft", reason="LoRAs need npc-local[lora]")
    file = tmp_path / "x.safetensors"
    whole = {
        **kohya_pair("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", 16),
        **kohya_pair("lora_te1_text_model_encoder_layers_0_self_attn_out_proj", 16),
        **kohya_pair("lora_te2_text_model_encoder_layers_1_self_attn_out_proj", 16),
    }
    save_file(whole, file)
    wanted = other(sdxl_directory, loras=[{"path": file}])
    assert difference(wanted, other(sdxl_directory)) > 0
    for layer in (
        "lora_unet_down_blocks_7_attentions_0_transformer_blocks_0_attn1_to_q",
        "lora_te1_text_model_encoder_layers_7_self_attn_q_proj",
    ):
        save_file(whole | kohya_pair(layer, 16), file)
        message = refusal(ModelFilesError, wanted)
        assert layer in message or "cannot be loaded as a LoRA" in message
    save_file(whole | kohya_pair("lora_te3_encoder_block_0_layer_0_SelfAttention_q", 16), file)
    assert refusal(ModelFilesError, wanted).startswith(f"{file}: ")


def test_a_pipeline_that_takes_no_loras_says_so(
    flux_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft", reason="LoRAs need npc-local[lora]")
    with pytest.raises(ConfigError, match="loras: object cannot load any"):
        loras.add_loras(
            object(), settings(flux_directory, loras=[write_lora(tmp_path / "a.safetensors")]).loras
        )

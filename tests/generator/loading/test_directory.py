"""Directories on disk: distilled names, variants of weights, what is missing or damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from npc_local.core.errors import (
    ConfigError,
    ModelFilesError,
)
from npc_local.generator.diffusers_generator import DiffusersGenerator
from npc_local.generator.loading import directory
from tests.generator.families import sdxl
from tests.generator.images import edit_index, settings
from tests.generator.loading.models import (
    TRANSFORMER,
    difference,
    other,
    pixels,
    refusal,
    write_lora,
)


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
    with pytest.raises(ModelFilesError, match=r"but flux1-dev\.safetensors: another layout"):
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

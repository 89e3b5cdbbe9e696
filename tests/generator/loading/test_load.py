"""Every other option of a generator's table, on real pipelines with tiny random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from npc_local.core.errors import (
    ConfigError,
    DeviceLostError,
    NpcError,
)
from npc_local.core.records import Shot
from npc_local.generator.diffusers_generator import DiffusersGenerator
from npc_local.generator.loading import load as loading
from npc_local.generator.loading import quantization
from tests.generator.families import chroma, z_image
from tests.generator.images import NEGATIVE, image_of, settings
from tests.generator.loading.models import (
    GPU,
    difference,
    other,
    refusal,
    without,
)


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
    without(package, monkeypatch)
    if package == "bitsandbytes":
        for module in (loading, quantization):
            monkeypatch.setattr(module, "resolve_device", lambda _: GPU)
        monkeypatch.setattr(loading, "_check_dtype", lambda *_: None)
    message = refusal(ConfigError, settings(flux_directory, **change))
    assert f"needs {package}, which is not installed: pip install 'npc-local[{extra}]'" in message


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
        assert image_of(generator, NEGATIVE)[0]
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

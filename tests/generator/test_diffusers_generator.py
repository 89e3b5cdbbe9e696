"""The generator against stock pipeline calls, and its refusals against damaged directories."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from npc_local.core.config.settings import EncoderSettings
from npc_local.core.errors import (
    ConfigError,
    DeviceLostError,
    GeneratorError,
    ModelFilesError,
    PromptError,
)
from npc_local.core.records import Shot
from npc_local.generator.diffusers_generator import DiffusersGenerator
from npc_local.generator.early_negative.gate import Gate, Pipeline, early_negative
from npc_local.generator.pipeline_generator import PipelineGenerator
from tests.generator.images import NEGATIVE, PROMPT, SEED, N, edit_index, image_of, settings


@pytest.fixture
def damaged(flux_directory: Path, tmp_path: Path) -> Path:
    """A copy of the pipeline's directory, to be damaged."""
    return Path(shutil.copytree(flux_directory, tmp_path / "copy"))


def stock(pipe: Pipeline, **arguments: Any) -> bytes:
    image = pipe(
        PROMPT,
        height=32,
        width=32,
        num_inference_steps=N,
        guidance_scale=3.5,
        max_sequence_length=24,
        generator=torch.Generator("cpu").manual_seed(SEED),
        **arguments,
    ).images[0]
    pixels: bytes = image.tobytes()
    return pixels


def test_off_equals_the_stock_calls_with_texts(flux_directory: Path, pipe: Pipeline) -> None:
    generator = DiffusersGenerator(settings(flux_directory))
    with early_negative(pipe, 2):
        gated = stock(pipe, negative_prompt=NEGATIVE, true_cfg_scale=1.8)
    assert image_of(generator, None) == (stock(pipe), N)
    assert image_of(generator, NEGATIVE) == (gated, N + 2)
    assert gated != stock(pipe)


def test_null_equals_the_stock_calls_with_texts(flux_directory: Path, pipe: Pipeline) -> None:
    generator = DiffusersGenerator(settings(flux_directory, after="null"))
    with early_negative(pipe, 2, "null"):
        gated = stock(pipe, negative_prompt=NEGATIVE, true_cfg_scale=1.8)
    baseline = stock(pipe, negative_prompt="", true_cfg_scale=1.8)
    assert image_of(generator, None) == (baseline, 2 * N)
    assert image_of(generator, NEGATIVE) == (gated, 2 * N)
    assert gated != baseline


def test_same_shot_same_bytes_in_any_company(flux_directory: Path) -> None:
    shots = [Shot(PROMPT, NEGATIVE, 1), Shot("a clock", None, 1), Shot(PROMPT, NEGATIVE, 2)]
    generator = DiffusersGenerator(settings(flux_directory))
    together = [render.image.tobytes() for render in map(generator.generate, shots)]
    fresh = DiffusersGenerator(settings(flux_directory))
    alone = [fresh.generate(shot).image.tobytes() for shot in reversed(shots)]
    assert together == alone[::-1]
    assert len(set(together)) == 3


def test_each_text_is_encoded_once(flux_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = DiffusersGenerator(settings(flux_directory))
    encoder = generator.pipe.text_encoder_2
    run, texts = encoder.forward, []

    def forward(ids: torch.Tensor, **options: Any) -> Any:
        texts.append(ids)
        return run(ids, **options)

    monkeypatch.setattr(encoder, "forward", forward)
    for negative in (None, NEGATIVE, "red", "red"):
        generator.generate(Shot(PROMPT, negative, 1))
    assert len(texts) == 3


def test_the_first_prediction_is_reused_with_the_same_pixels(
    flux_directory: Path, gates: list[Gate]
) -> None:
    negatives = (None, NEGATIVE, "red", "")
    generator = DiffusersGenerator(settings(flux_directory))
    reusing = [image_of(generator, negative) for negative in negatives]
    assert [gate.forwards for gate in gates] == [N, N + 1, N + 1, N + 1]
    gates.clear()
    fresh = [
        image_of(DiffusersGenerator(settings(flux_directory)), negative) for negative in negatives
    ]
    assert [gate.forwards for gate in gates] == [N, N + 2, N + 2, N + 2]
    # What an image takes does not depend on what was made before it.
    assert reusing == fresh
    assert [forwards for _, forwards in fresh] == [N, N + 2, N + 2, N + 2]


def test_steps_are_reported(flux_directory: Path) -> None:
    generator = DiffusersGenerator(settings(flux_directory))
    silent, _ = image_of(generator, NEGATIVE)
    seen: list[tuple[int, int]] = []
    shot = Shot(PROMPT, NEGATIVE, SEED)
    told = generator.generate(shot, lambda done, of: seen.append((done, of)))
    assert told.image.tobytes() == silent
    assert seen == [(step, N) for step in range(1, N + 1)]


def test_a_prompt_longer_than_the_model_reads_is_refused(flux_directory: Path) -> None:
    generator = DiffusersGenerator(settings(flux_directory))
    with pytest.raises(PromptError, match="24"):
        generator.generate(Shot("cat " * 24, None, 1))


@pytest.mark.parametrize("value", [float("nan"), -9.0])
def test_an_unusable_picture_is_an_error(
    flux_directory: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    generator = DiffusersGenerator(settings(flux_directory))
    vae = generator.pipe.vae
    monkeypatch.setattr(vae, "decode", lambda *_, **__: (torch.full((1, 3, 32, 32), value),))
    with pytest.raises(GeneratorError, match="not numbers" if value != value else "all-black"):
        image_of(generator, None)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "32 x 32.*smaller size"),
        (RuntimeError("mat1 and mat2 shapes"), "mat1 and mat2 shapes"),
    ],
)
def test_a_failing_model_is_an_error_and_the_next_image_is_sound(
    flux_directory: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, message: str
) -> None:
    generator = DiffusersGenerator(settings(flux_directory))
    expected, _ = image_of(generator, NEGATIVE)

    def fail(*_: Any, **__: Any) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(generator.pipe.transformer.proj_out, "forward", fail)
        with pytest.raises(GeneratorError, match=message):
            image_of(generator, NEGATIVE)
    assert image_of(generator, NEGATIVE)[0] == expected


def test_a_missing_directory_says_that_paths_are_local(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match="never hub ids"):
        DiffusersGenerator(settings(tmp_path / "black-forest-labs" / "FLUX.1-dev"))


@pytest.mark.parametrize("content", [None, "{", "[]", "\udcff"])
def test_a_missing_or_damaged_index_is_named(damaged: Path, content: str | None) -> None:
    index = damaged / "model_index.json"
    index.unlink()
    if content is not None:
        index.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ModelFilesError, match=r"model_index\.json"):
        DiffusersGenerator(settings(damaged))


def test_another_pipeline_class_is_refused_with_what_is_supported(damaged: Path) -> None:
    edit_index(damaged, _class_name="WanPipeline")
    with pytest.raises(ConfigError, match=r"WanPipeline.*supported: .*FluxPipeline"):
        DiffusersGenerator(settings(damaged))


def test_code_in_the_directory_is_refused_unseen(damaged: Path) -> None:
    edit_index(damaged, transformer=["evil", "Transformer"])
    (damaged / "transformer" / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ConfigError, match="no code is run"):
        DiffusersGenerator(settings(damaged))


@pytest.mark.parametrize("kept", [-1, 100, 4, 0])
def test_truncated_weights_are_named(damaged: Path, kept: int) -> None:
    weights = damaged / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ModelFilesError, match=rf"{weights.name}: damaged"):
        DiffusersGenerator(settings(damaged))


def test_a_missing_shard_is_named(damaged: Path) -> None:
    index = damaged / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"proj_out.weight": "part-2.safetensors"}}))
    with pytest.raises(ModelFilesError, match=r"part-2\.safetensors: missing"):
        DiffusersGenerator(settings(damaged))


@pytest.mark.parametrize("gone", ["vae", "transformer/config.json", "text_encoder_2"])
def test_missing_parts_are_model_file_errors(damaged: Path, gone: str) -> None:
    path = damaged / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ModelFilesError, match=str(damaged)):
        _ = DiffusersGenerator(settings(damaged)).pipe


def test_a_pickle_in_place_of_weights_is_never_read(damaged: Path, tmp_path: Path) -> None:
    weights = damaged / "vae" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    sentinel = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(sentinel),)

    torch.save(Payload(), weights.with_suffix(".bin"))
    with pytest.raises(ModelFilesError):
        _ = DiffusersGenerator(settings(damaged)).pipe
    assert not sentinel.exists()


def test_a_size_that_diffusers_would_round_is_refused(flux_directory: Path) -> None:
    with pytest.raises(ConfigError, match=r"width = 34: must be a multiple of 4"):
        DiffusersGenerator(settings(flux_directory, width=34))


def test_a_device_that_is_not_there_is_refused(flux_directory: Path) -> None:
    generator = DiffusersGenerator(settings(flux_directory, device="cuda:99"))
    with pytest.raises(ConfigError, match="cuda:99"):
        _ = generator.pipe


def test_the_fingerprint_follows_content_not_place(flux_directory: Path, damaged: Path) -> None:
    original = DiffusersGenerator(settings(flux_directory)).fingerprint()
    assert DiffusersGenerator(settings(damaged)).fingerprint() == original
    assert DiffusersGenerator(settings(flux_directory, steps=5)).fingerprint() != original
    weights = damaged / "transformer" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert DiffusersGenerator(settings(damaged)).fingerprint() != original


@pytest.mark.parametrize(
    "module", ["generator.diffusers_generator", "generator.early_negative.gate", "salience.scorer"]
)
def test_importing_stays_light(module: str) -> None:
    code = (
        f"import sys, npc_local.{module}; "
        "print({'torch', 'diffusers', 'transformers'} & sys.modules.keys())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def held(path: Path, **changes: Any) -> EncoderSettings:
    return EncoderSettings(**({"path": path, "device": "cpu"} | changes))


def test_a_text_encoder_of_the_same_directory_is_lent(flux_directory: Path) -> None:
    generator = DiffusersGenerator(settings(flux_directory))
    lent = generator.text_encoder(held(flux_directory))
    assert lent is not None
    assert (lent.quantization, lent.fingerprint) == (None, None)
    assert generator._sampler is None  # loaded when it is needed
    assert lent.pipe() is generator.pipe


@pytest.mark.parametrize(
    "changes",
    [{"dtype": "bfloat16"}, {"path": Path("elsewhere")}, {"kind": "decoder"}, {"tokenizer": "."}],
)
def test_another_text_encoder_is_not_lent(
    flux_directory: Path, pipe: Pipeline, changes: dict[str, Any]
) -> None:
    wanted = held(**({"path": flux_directory} | changes))
    assert DiffusersGenerator(settings(flux_directory)).text_encoder(wanted) is None
    assert PipelineGenerator(pipe).text_encoder(wanted) is None


def test_a_user_s_pipeline_lends_its_encoder_with_its_own_fingerprint(
    flux_directory: Path, pipe: Pipeline
) -> None:
    generator = PipelineGenerator(pipe)
    lent = generator.text_encoder(held(flux_directory))
    assert lent is not None
    assert lent.pipe() is pipe
    assert lent.fingerprint is not None
    assert lent.fingerprint() == generator.fingerprint()


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), GeneratorError, "let other programs end"),
        (torch.AcceleratorError("CUDA error: out of memory"), GeneratorError, "let other programs"),
        (RuntimeError("CUDA error: unspecified launch failure"), DeviceLostError, "the GPU failed"),
        (RuntimeError("no such device"), GeneratorError, "cannot move to cpu: no such device"),
    ],
)
def test_a_model_that_cannot_take_the_gpu_again_is_an_error(
    flux_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    kind: type[Exception],
    message: str,
) -> None:
    generator = DiffusersGenerator(settings(flux_directory))
    generator.enter_device()  # nothing to move yet
    pipe = generator.pipe
    generator.leave_device()
    assert generator.pipe is pipe
    monkeypatch.setattr(type(pipe), "to", mock.Mock(side_effect=failure))
    with pytest.raises(kind, match=message) as caught:
        generator.enter_device()
    assert type(caught.value) is kind


def test_generating_is_silent(flux_directory: Path) -> None:
    code = (
        "from pathlib import Path; from tests.generator.images import *; import torch; "
        f"path = Path({str(flux_directory)!r}); "
        "image_of(DiffusersGenerator(settings(path, threads=1)), NEGATIVE); "
        "print(torch.get_num_threads())"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert (run.stdout, run.stderr) == ("1\n", "")

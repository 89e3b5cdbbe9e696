"""A model directory: a loader raises the first fault, doctor lists all, and they are the same."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npc_local.core.errors import ModelFilesError, NpcError
from npc_local.core.files import model_directory
from npc_local.core.files.fault import raise_first, read_json
from npc_local.core.files.model_directory import faults, hash_files
from npc_local.core.files.tokenizer import tokenizer_faults
from npc_local.core.files.weights import (
    DIFFUSERS,
    TRANSFORMERS,
    file_faults,
    variants,
    weight_faults,
)
from npc_local.generator.loading.directory import vae_scale

SHAPES = Path(model_directory.__file__).parents[2] / "shapes" / "weights"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The shapes pipeline, to be damaged and mended again."""
    return Path(shutil.copytree(SHAPES, tmp_path_factory.mktemp("models") / "pipe"))


def safetensors(file, size=16):
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, size]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))


def test_a_whole_pipeline_has_no_fault():
    assert list(faults(SHAPES)) == []


FILES = sorted(
    file.relative_to(SHAPES).as_posix()
    for file in SHAPES.rglob("*")
    if file.is_file() and file.suffix in (".json", ".safetensors")
)


@given(
    name=st.sampled_from(FILES),
    content=st.one_of(
        st.none(),
        st.just(b""),
        st.just(b"[]"),
        st.just(b"[" * 100_000),
        st.just(b'{"weight_map": {"w": ["x"]}}'),
        st.just(b"version https://git-lfs.github.com/spec/v1\n"),
        st.binary(max_size=60),
    ),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_damaged_file_is_a_fault_and_never_an_exception(pipeline, name, content):
    file = pipeline / name
    whole = file.read_bytes()
    try:
        file.unlink() if content is None else file.write_bytes(content)
        listed = list(faults(pipeline))
    finally:
        file.write_bytes(whole)
    loaded = content is None or not content.startswith(b"{")
    needed = not name.endswith(("special_tokens_map.json", "generation_config.json"))
    if loaded and needed:
        assert any(name.split("/")[0] in f"{fault.where} {fault.what}" for fault in listed), listed
        with pytest.raises(NpcError) as raised:
            raise_first(listed)
        assert str(raised.value) == str(listed[0].error())


def test_the_first_fault_is_raised_with_what_to_do(tmp_path):
    with pytest.raises(ModelFilesError, match=r"x: no such directory\. .* never hub ids .*; downl"):
        raise_first(faults(tmp_path / "x"))
    with pytest.raises(ModelFilesError, match=r"neither model_index\.json nor .* in it; name"):
        raise_first(faults(tmp_path))
    raise_first([])


@pytest.mark.parametrize("stem", [TRANSFORMERS, DIFFUSERS])
def test_weights_are_found_by_the_names_that_loaders_look_for(tmp_path, stem):
    def found(*names):
        for file in tmp_path.iterdir():
            file.unlink()
        for name in names:
            if name.endswith(".json"):
                (tmp_path / name).write_text(json.dumps({"weight_map": {"w": names[0]}}))
            else:
                safetensors(tmp_path / name)
        return [fault.what for fault in weight_faults(tmp_path, [stem])]

    assert found(f"{stem}.safetensors") == []
    assert found(f"{stem}.fp16.safetensors") == []
    assert found(f"{stem}-00001-of-00001.safetensors", f"{stem}.safetensors.index.json") == []
    shard = f"{stem}.fp16-00001-of-00001.safetensors"
    assert found(shard, f"{stem}.safetensors.index.fp16.json") == []
    assert found() == [f"no weights: {stem}.safetensors is missing"]
    assert found(shard) == [f"weights in shards without {stem}.safetensors.index.json"]
    assert found("other.safetensors") == [
        f"no {stem}.safetensors, but other.safetensors: another layout"
    ]


def test_a_tokenizer_of_bytes_needs_no_vocabulary(tmp_path):
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    assert list(tokenizer_faults(tmp_path)) == []
    config.write_text('{"tokenizer_class": "T5Tokenizer"}')
    assert [fault.what[:20] for fault in tokenizer_faults(tmp_path)] == ["no tokenizer.json, n"]


def test_a_variant_counts_where_the_plain_weights_are_not(tmp_path):
    safetensors(tmp_path / "model.fp16.safetensors")
    safetensors(tmp_path / "model.bf16-00001-of-00002.safetensors")
    assert variants(tmp_path) == {"fp16", "bf16"}
    safetensors(tmp_path / "model.safetensors")
    assert variants(tmp_path) == set()


@given(st.binary(max_size=40))
def test_any_header_is_whole_or_a_fault(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "w.safetensors"
    file.write_bytes(content)
    assert len(list(file_faults(file))) == 1 or len(content) >= 10


def test_json_of_any_kind_but_an_object_is_refused(tmp_path):
    file = tmp_path / "config.json"
    for content in ("[]", "1", "{", "[" * 100_000):
        file.write_text(content)
        with pytest.raises(ModelFilesError, match=r"config\.json: (cannot be read|damaged)"):
            read_json(file)


def test_only_model_files_are_hashed(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/config.json", "a/README.md", "model_index.json"):
        (tmp_path / name).write_text(name)
    assert sorted(hash_files(tmp_path, ["a", "model_index.json"])) == [
        "a/config.json",
        "model_index.json",
    ]


FAMILIES = [
    "auraflow",
    "chroma",
    "cogview4",
    "flux",
    "flux2_klein",
    "hidream",
    "hunyuan_image",
    "kolors",
    "krea2",
    "longcat",
    "lumina2",
    "ovis",
    "pixart",
    "qwen_image",
    "qwen_image_21",
    "sana",
    "sd1",
    "sd3",
    "sdxl",
    "z_image",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_scale_of_a_vae_is_read_as_its_pipeline_reads_it(name):
    pipe = importlib.import_module(f"tests.generator.families.{name}").build()
    config = json.loads(json.dumps(dict(pipe.vae.config), default=str))
    assert vae_scale(config) == pipe.vae_scale_factor

"""One tiny pipeline directory a session, one freshly loaded pipeline a test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from npc_local.core.offline.switches import go_offline
from npc_local.generator import pipeline_generator as sampling
from npc_local.generator.early_negative.gate import Gate, Pipeline
from tests.generator.tiny_flux import build_tiny_flux

go_offline()


@pytest.fixture(scope="session")
def flux_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_flux(tmp_path_factory.mktemp("models") / "tiny-flux")


@pytest.fixture
def pipe(flux_directory: Path) -> Pipeline:
    import diffusers

    family: Any = diffusers.FluxPipeline
    loaded = family.from_pretrained(flux_directory, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> list[Gate]:
    """The gates of all images that a generator makes, in order: what was really computed."""
    made: list[Gate] = []

    class Noted(Gate):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(sampling, "Gate", Noted)
    return made


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stand-ins for CUDA's streams and pinned memory: all that group offload needs a GPU for."""
    from diffusers.hooks import group_offloading

    class Stream:
        def synchronize(self) -> None:
            pass

    class Backend:
        def __init__(self, device: Any) -> None:
            pass

        @contextlib.contextmanager
        def stream(self, stream: Any) -> Iterator[None]:
            yield

        def current_stream(self) -> Stream:
            return Stream()

    monkeypatch.setattr(group_offloading, "TorchDeviceBackend", Backend)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_, **__: tensor.clone())
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda *_, **__: True)
    return Stream


def offload_in_groups(model: Any, stream: Any) -> None:
    """Do what enable_group_offload(use_stream=True) does to each model."""
    from diffusers.hooks import group_offloading

    cpu = torch.device("cpu")
    group_offloading._apply_group_offloading(
        model,
        group_offloading.GroupOffloadingConfig(
            onload_device=cpu,
            offload_device=cpu,
            offload_type=group_offloading.GroupOffloadingType.LEAF_LEVEL,
            non_blocking=True,
            record_stream=False,
            low_cpu_mem_usage=False,
            stream=stream(),
        ),
    )

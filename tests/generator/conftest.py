"""One tiny pipeline directory a session, one freshly loaded pipeline a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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

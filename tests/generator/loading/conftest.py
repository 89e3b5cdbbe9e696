"""Directories to load from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.generator.families import sd3, sdxl


@pytest.fixture
def copied(flux_directory: Path, tmp_path: Path) -> Path:
    """A copy of the pipeline's directory, to be changed."""
    return Path(shutil.copytree(flux_directory, tmp_path / "copy"))


@pytest.fixture(scope="session")
def sdxl_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(sdxl.build(), tmp_path_factory)


@pytest.fixture(scope="session")
def sd3_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(sd3.build(), tmp_path_factory)


def saved(pipe: Any, places: pytest.TempPathFactory) -> Path:
    place = places.mktemp("models") / "tiny"
    pipe.save_pretrained(place, safe_serialization=True)
    return place

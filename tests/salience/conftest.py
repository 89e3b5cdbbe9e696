"""A tiny T5 encoder with its tokenizer, taken from the tiny FLUX directory; caches of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from npc_local.core.config.settings import EncoderSettings
from npc_local.core.offline.switches import go_offline
from tests.generator.tiny_flux import build_tiny_flux

go_offline()


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of word vectors, empty at first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "npc-local" / "vectors"


@pytest.fixture(scope="session")
def encoder_settings(tmp_path_factory: pytest.TempPathFactory) -> EncoderSettings:
    path = build_tiny_flux(tmp_path_factory.mktemp("models") / "tiny-flux")
    return EncoderSettings(path=path, device="cpu", tokens="quantity")

"""A tiny T5 encoder with its tokenizer, taken from the tiny FLUX directory; caches of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from npc_local.core.config.settings import EncoderSettings
from npc_local.core.offline.switches import go_offline
from tests.generator.tiny_flux import build_tiny_flux

go_offline()


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep no digest of a file beyond a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


@pytest.fixture(scope="session")
def encoder_settings(tmp_path_factory: pytest.TempPathFactory) -> EncoderSettings:
    path = build_tiny_flux(tmp_path_factory.mktemp("models") / "tiny-flux")
    return EncoderSettings(path=path, device="cpu", tokens="quantity")

"""A tiny T5 encoder with its tokenizer, taken from the tiny FLUX directory."""

from __future__ import annotations

import pytest

from npc_local.offline import go_offline
from npc_local.settings import EncoderSettings
from tests.tiny_flux import build_tiny_flux

go_offline()


@pytest.fixture(scope="session")
def encoder_settings(tmp_path_factory: pytest.TempPathFactory) -> EncoderSettings:
    path = build_tiny_flux(tmp_path_factory.mktemp("models") / "tiny-flux")
    return EncoderSettings(path=path, device="cpu")

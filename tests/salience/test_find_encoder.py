"""Which encoder a directory holds, and which hold none."""

from __future__ import annotations

from pathlib import Path

import pytest

from npc_local.core.errors import ModelFilesError
from npc_local.salience.find_encoder import encoder_in


def test_a_directory_without_an_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match="no text encoder"):
        encoder_in(tmp_path)
    with pytest.raises(ModelFilesError, match="no such directory"):
        encoder_in(tmp_path / "absent")


def test_an_encoder_that_cannot_rank_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "umt5"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelFilesError, match="umt5"):
        encoder_in(tmp_path)

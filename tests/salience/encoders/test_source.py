"""Where encoders come from: what is refused before loading, and what names the vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from npc_local.core.config.settings import EncoderSettings
from npc_local.core.errors import ModelFilesError
from npc_local.salience.encoders.source import Source, from_directory, from_generator


@pytest.mark.parametrize("open_source", [from_directory, lambda s: from_generator(s, dict, None)])
def test_the_wrong_kind_is_refused(
    encoder_settings: EncoderSettings, open_source: Callable[[EncoderSettings], Source]
) -> None:
    for change in ({"kind": "clip"}, {"text_encoder": "text_encoder"}):
        with pytest.raises(ModelFilesError, match="correct the kind"):
            open_source(encoder_settings.model_copy(update=change))
    for change in ({"tokenizer": "tokenizer_9"}, {"text_encoder": "text_encoder_9"}):
        with pytest.raises(ModelFilesError, match="_9: no such directory"):
            open_source(encoder_settings.model_copy(update=change))


def test_the_identity_follows_files_and_dtype(encoder_settings: EncoderSettings) -> None:
    def identity(**changes: Any) -> str:
        source: Source = from_directory(encoder_settings.model_copy(update=changes))
        return source.identity()

    assert identity() == identity(formula="released", tokens="released")  # the same vectors
    different = [
        {"dtype": "bfloat16"},
        {"tokenizer": "tokenizer"},
        {"kind": "clip", "text_encoder": "text_encoder"},
    ]
    assert len({identity(), *(identity(**change) for change in different)}) == 4

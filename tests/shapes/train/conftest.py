"""What several tests of the training start from."""

from __future__ import annotations

import pytest

from npc_local.shapes.train.tokens import make_tokenizers


@pytest.fixture(scope="session")
def tokenizer_files(tmp_path_factory):
    """The directory with the two tokenizers of seed 0."""
    directory = tmp_path_factory.mktemp("tokenizers")
    make_tokenizers(directory, seed=0)
    return directory

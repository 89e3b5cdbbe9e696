"""Where the numbers of the authors' released code are, if they are here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

GOLDEN = Path(os.environ.get("NPC_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(),
    reason="needs the golden files, kept beside the checkout (NPC_GOLDEN names their folder)",
)

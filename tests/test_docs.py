"""The examples in the documentation run, and print what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from npc_local.core.offline.switches import SWITCHES

ROOT = Path(__file__).parents[1]


def test_the_python_page_runs():
    """Without HF_HUB_OFFLINE and the like, as a reader would run it."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.S)
    assert len(blocks) == 2
    plain = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=plain,
    )
    assert run.returncode == 0, run.stderr
    first, second = run.stdout.splitlines()
    assert re.fullmatch(r"(already-correct|corrected|best-effort) after \d images", first)
    assert second == "26 forwards"

"""The switches: set over the environment's own, and never too late in silence."""

from __future__ import annotations

import os
import subprocess
import sys

from npc_local.offline import SWITCHES


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter whose environment asks for the network."""
    online = os.environ | dict.fromkeys(SWITCHES, "0")
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=online)


def test_hub_is_offline_whatever_the_environment_says() -> None:
    run = python(
        "from npc_local.offline import go_offline; go_offline(); go_offline(); "
        "from huggingface_hub import constants; "
        "print(constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    assert run.stdout == "True True\n"


def test_a_hub_that_was_imported_online_is_switched_off() -> None:
    """As in a notebook, where a pipeline was loaded before npc-local is called."""
    run = python(
        "import diffusers, huggingface_hub; from huggingface_hub import errors; "
        "from npc_local.offline import go_offline; go_offline()\n"
        "try: huggingface_hub.HfApi().model_info('org/name')\n"
        "except errors.OfflineModeIsEnabled: print('refused before any request')"
    )
    assert run.stdout == "refused before any request\n", run.stderr

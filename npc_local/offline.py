"""The switches that keep the model libraries off the network.

They are read when a library is imported, so `go_offline` comes before any heavy import.
"""

from __future__ import annotations

import os
import sys

from npc_local.errors import ConfigError

SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "DO_NOT_TRACK": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
}


def go_offline() -> None:
    """Set every switch, overriding what the environment says.

    Raises:
        ConfigError: huggingface_hub was imported online before, so that its switch comes too late.
    """
    os.environ.update(SWITCHES)
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None and not hub.HF_HUB_OFFLINE:
        raise ConfigError(
            "huggingface_hub was imported before npc-local could switch it offline; "
            "start Python with HF_HUB_OFFLINE=1 in the environment"
        )

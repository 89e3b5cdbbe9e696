"""The switches that keep the model libraries off the network.

They are read when a library is imported, so `go_offline` comes before any heavy import; in a
program that imported huggingface_hub already, it switches that off at once.
"""

from __future__ import annotations

import os
import sys

SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "DO_NOT_TRACK": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
}


def go_offline() -> None:
    """Set every switch, overriding what the environment says, for the rest of this process."""
    os.environ.update(SWITCHES)
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None:
        # What all requests of the hub's client look at; it then names HF_HUB_OFFLINE as the reason.
        hub.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
        hub.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]

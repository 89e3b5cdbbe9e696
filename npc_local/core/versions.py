"""The version of this package, and those of the libraries that have a say in an image."""

from __future__ import annotations

import importlib.metadata

__version__ = "0.1.0"


def libraries() -> dict[str, str]:
    """Return the versions of the libraries that images and their encodings come from."""
    return {
        name: importlib.metadata.version(name)
        for name in ("diffusers", "pillow", "torch", "transformers")
    }

"""The version of this package, and those of the libraries that have a say in an image."""

from __future__ import annotations

__version__ = "0.1.0"

"""Reads image files that people name: whole, upright, opaque, RGB; or says why not."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from npc_local.core.errors import ConfigError


def open_image(path: Path) -> Image.Image:
    """Read an image file into RGB, upright, on white where it is transparent.

    Raises:
        ConfigError: it is no file, or no image that can be read.
    """
    try:
        with warnings.catch_warnings():
            # Large, but not too large: backends shrink it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                upright = ImageOps.exif_transpose(opened).convert("RGBA")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a directory, not an image") from None
    except UnidentifiedImageError:
        raise ConfigError(f"{path}: not an image that can be read (PNG, JPEG, WebP)") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow raises each of these for files that are cut off, damaged or far too large.
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    ground = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(ground, upright).convert("RGB")

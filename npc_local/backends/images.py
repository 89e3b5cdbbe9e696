"""An image as the agents get it: shrunk to a pixel budget, PNG, inside the request itself.

The same pixels always become the same bytes, whichever role asks, so that a server's image cache
hits. Nothing but an image in memory is taken: no path, no address (R14 of the security notes: a
server that is handed an address fetches it).

The size rule is qwen-vl-utils' `smart_resize`, written out: importing that package means importing
torchvision, whose published builds do not load beside a CPU-only torch, and the rule of the same
name in transformers differs for images thinner than half a patch. The tests hold it against the
original. Where the original rounds a side of a long strip down to nothing, a side is one patch.
"""

from __future__ import annotations

import base64
import io
import math
from functools import lru_cache

from PIL import Image

from npc_local.core.files.images import as_rgb

FACTOR = 28
"""Pixels of one visual token's side in Qwen2-VL and Qwen2.5-VL (patch 14, merged by 2)."""
MIN_PIXELS = 4 * FACTOR**2
_MAX_RATIO = 200


def smart_resize(
    height: int, width: int, max_pixels: int, *, factor: int = FACTOR, min_pixels: int = MIN_PIXELS
) -> tuple[int, int]:
    """Return the (height, width) in pixels that an image is sent at.

    Both are multiples of `factor`, their product lies within `min_pixels`..`max_pixels` (but for
    images and budgets of a few patches, where rounding decides), and the aspect ratio changes as
    little as that allows.

    Raises:
        ValueError: one side is more than 200 times the other.
    """
    if max(height, width) > _MAX_RATIO * min(height, width):
        raise ValueError(f"a {width} x {height} image is too long and thin to be looked at")
    rows = max(factor, round(height / factor) * factor)
    columns = max(factor, round(width / factor) * factor)
    if rows * columns > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
    elif rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / factor) * factor
        columns = math.ceil(width * grow / factor) * factor
    return rows, columns


def data_url(image: Image.Image, max_pixels: int, factor: int = FACTOR) -> str:
    """Return an image as a `data:` URL of PNG bytes, at most `max_pixels` large.

    Its sides are multiples of `factor`, the side in pixels of a visual token.

    Transparency is laid on white, as qwen-vl-utils does.

    Raises:
        TypeError: not an image in memory; an address or a path is never followed.
        ValueError: the image is too long and thin, or of greys without an agreed white.
    """
    if not isinstance(image, Image.Image):
        raise TypeError(f"images are sent as data, never as {type(image).__name__}")
    image = as_rgb(image)
    return _encode(image.tobytes(), image.width, image.height, max_pixels, factor)


# Keyed by the pixels and not by the object, so that an image changed in place is encoded anew.
@lru_cache(maxsize=8)
def _encode(pixels: bytes, width: int, height: int, max_pixels: int, factor: int) -> str:
    image = Image.frombytes("RGB", (width, height), pixels)
    rows, columns = smart_resize(height, width, max_pixels, factor=factor, min_pixels=4 * factor**2)
    if (columns, rows) != image.size:
        image = image.resize((columns, rows), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")

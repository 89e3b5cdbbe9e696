"""Reads a picture back into a scene: exact on drawn scenes, sober on generated ones.

Colour segmentation against the palette, connected components and region properties
(scikit-image), shape by comparing the region's mask with templates.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import skimage.measure
import skimage.morphology
import skimage.transform
from numpy.typing import NDArray
from PIL import Image

from npc_local.shapes.draw import draw
from npc_local.shapes.scene import BACKGROUNDS, CANVAS, COLORS, SHAPES, Background, Scene, Thing

_LEAST_AREA = 28  # pixels: below it is a smudge, not a thing (a small star has about 45)
_TEMPLATE = 24
_PALETTE = np.array(
    [*COLORS.values(), *(rgb for pair in BACKGROUNDS.values() for rgb in pair)], dtype=np.float32
)
_PAPERS = len(COLORS)  # index of the first background colour in the palette


def detect(image: Image.Image) -> Scene:
    """Return every thing in the picture and its background.

    Args:
        image: any size; it is read as RGB and resampled to the 64 x 64 canvas.

    Returns:
        Things from top left to bottom right, in canvas pixels.
    """
    nearest = _segment(image)
    background = _background(nearest)
    things = [
        thing
        for index, color in enumerate(COLORS)
        if color != background.color
        for thing in _things(nearest == index, color, rims=background.color in COLORS)
    ]
    things.sort(key=lambda thing: (round(thing.y / 16), thing.x))
    return Scene(tuple(things), background)


def _segment(image: Image.Image) -> NDArray[np.intp]:
    """Index of the nearest palette colour a pixel, shape (64, 64)."""
    small = image.convert("RGB")
    if small.size != (CANVAS, CANVAS):
        small = small.resize((CANVAS, CANVAS), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float32)
    distance = ((pixels[:, :, None] - _PALETTE) ** 2).sum(-1)
    nearest: NDArray[np.intp] = distance.argmin(-1)
    return nearest


def _things(mask: NDArray[np.bool_], color: str, *, rims: bool) -> list[Thing]:
    """The things of one colour; `rims`: two other colours may mix to this one where they meet."""
    things = []
    for region in _regions(mask):
        if region.area >= _LEAST_AREA and not (rims and _is_rim(region.image)):
            fit = _fit(region.image_filled)
            radius = float(np.sqrt(region.area / fit.area))
            y, x = region.centroid
            # Pixel centres lie half a pixel after their index.
            x, y = x + 0.5, y + 0.5 + fit.drop * radius
            things.append(Thing(fit.shape, color, float(x), float(y), radius))
    return things


def _is_rim(mask: NDArray[np.bool_]) -> bool:
    """Whether a region is nowhere three pixels wide and high."""
    inner = skimage.morphology.erosion(np.pad(mask, 1), np.ones((3, 3), dtype=bool))
    return not inner.any()


def _regions(mask: NDArray[np.bool_]) -> Any:
    """Connected components of a mask, with their properties."""
    measure: Any = skimage.measure  # whose functions carry no types
    return measure.regionprops(measure.label(mask, connectivity=1))


class _Template(NamedTuple):
    """What a shape looks like when drawn at a known size."""

    shape: str
    mask: NDArray[np.float64]  # (24, 24), the bounding box resampled
    area: float  # of the shape, for radius 1
    drop: float  # from the centroid down to the centre, for radius 1


def _fit(mask: NDArray[np.bool_]) -> _Template:
    """The template that overlaps the region's mask best (intersection over union)."""
    scaled = _to_template_size(mask)

    def overlap(template: _Template) -> float:
        both, either = np.minimum(scaled, template.mask), np.maximum(scaled, template.mask)
        return float(both.sum() / either.sum())

    return max(_templates(), key=overlap)


def _to_template_size(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    transform: Any = skimage.transform
    side = (_TEMPLATE, _TEMPLATE)
    scaled: NDArray[np.float64] = transform.resize(
        mask.astype(float), side, order=1, anti_aliasing=False
    )
    return scaled


@lru_cache(maxsize=1)
def _templates() -> tuple[_Template, ...]:
    """Each shape at several sizes and offsets, drawn by the drawer itself: no second geometry."""
    templates = []
    for shape in SHAPES:
        for radius in (5.8, 7.8, 10.0):
            for offset in (0.0, 0.5):
                thing = Thing(shape, "black", 32 + offset, 32 + offset, radius)
                picture = draw(Scene((thing,), Background()))
                mask = _segment(picture) == list(COLORS).index("black")
                region = _regions(mask)[0]
                drop = (thing.y - region.centroid[0] - 0.5) / radius
                scaled = _to_template_size(region.image_filled)
                templates.append(_Template(shape, scaled, region.area / radius**2, drop))
    return tuple(templates)


def _background(nearest: NDArray[np.intp]) -> Background:
    """Colour by majority of paper and shade together; pattern by where the shade lies.

    A shape's colour along most of the picture's edge is that of a plain background.
    """
    edge = np.concatenate([nearest[0], nearest[-1], nearest[1:-1, 0], nearest[1:-1, -1]])
    most = int(np.bincount(edge).argmax())
    if most < _PAPERS and 2 * int((edge == most).sum()) > len(edge):
        return Background(tuple(COLORS)[most], "plain")
    # The anti-aliased rim of a thing passes for shade: look only away from things.
    ground = ~skimage.morphology.dilation(nearest < _PAPERS, np.ones((5, 5), dtype=bool))
    counts = np.bincount(nearest[ground], minlength=len(_PALETTE))[_PAPERS:].reshape(-1, 2)
    chosen = int(counts.sum(1).argmax())
    paper, shade = counts[chosen]
    color = tuple(BACKGROUNDS)[chosen]
    if shade < 0.03 * max(paper + shade, 1):
        return Background(color, "plain")
    # Stripes darken whole rows, dots do not.
    is_shade = ground & (nearest == _PAPERS + 2 * chosen + 1)
    share = is_shade.sum(1) / np.maximum(ground.sum(1), 1)
    return Background(color, "striped" if share.max() > 0.6 else "dotted")

"""Draws a scene: 64 x 64 RGB, supersampled, crisp and anti-aliased."""

from __future__ import annotations

from math import cos, pi, sin

from PIL import Image, ImageDraw

from npc_local.shapes.scene import BACKGROUNDS, CANVAS, COLORS, PAPERS, Background, Scene, Thing

_SCALE = 4  # supersampling factor
_STRIPE = 16  # period of stripes and dots in pixels
_LINE = 4  # width of a stripe in pixels
_DOT = 2.2  # radius of a dot in pixels


def draw(scene: Scene) -> Image.Image:
    """Return the scene as a 64 x 64 RGB image."""
    large = _background(scene.background)
    pen = ImageDraw.Draw(large)
    for thing in scene.things:
        _thing(pen, thing)
    return large.resize((CANVAS, CANVAS), Image.Resampling.BOX)


def _background(background: Background) -> Image.Image:
    side = CANVAS * _SCALE
    image = Image.new("RGB", (side, side), PAPERS[background.color])
    if background.pattern == "plain":
        return image
    _, shade = BACKGROUNDS[background.color]
    pen = ImageDraw.Draw(image)
    if background.pattern == "striped":
        for top in range(_STRIPE // 2 - _LINE // 2, CANVAS, _STRIPE):
            pen.rectangle((0, top * _SCALE, side, (top + _LINE) * _SCALE - 1), fill=shade)
    else:
        for x in range(_STRIPE // 2, CANVAS, _STRIPE):
            for y in range(_STRIPE // 2, CANVAS, _STRIPE):
                pen.ellipse([v * _SCALE for v in (x - _DOT, y - _DOT, x + _DOT, y + _DOT)], shade)
    return image


def outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a shape that fills the square from (-1, -1) to (1, 1); y points down.

    Raises:
        KeyError: for the circle, which has no corners, and for unknown shapes.
    """
    arm = 0.36
    star = [
        (sin(k * pi / 5) * reach, -cos(k * pi / 5) * reach)
        for k in range(10)
        for reach in ((1.0, 0.5)[k % 2],)
    ]
    return {
        "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
        "triangle": [(0.0, -1.0), (1.0, 0.86), (-1.0, 0.86)],
        "star": star,
        "cross": [
            *[(-arm, -1.0), (arm, -1.0), (arm, -arm), (1.0, -arm), (1.0, arm), (arm, arm)],
            *[(arm, 1.0), (-arm, 1.0), (-arm, arm), (-1.0, arm), (-1.0, -arm), (-arm, -arm)],
        ],
    }[shape]


def _thing(pen: ImageDraw.ImageDraw, thing: Thing) -> None:
    color = COLORS[thing.color]
    if thing.shape == "circle":
        r = thing.radius * 0.95
        box = (thing.x - r, thing.y - r, thing.x + r, thing.y + r)
        pen.ellipse([v * _SCALE for v in box], color)
        return
    r = thing.radius
    corners = [(thing.x + u * r, thing.y + v * r) for u, v in outline(thing.shape)]
    pen.polygon([(x * _SCALE, y * _SCALE) for x, y in corners], color)

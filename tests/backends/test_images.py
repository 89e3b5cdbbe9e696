"""Images on the wire: Qwen's size rule, the same bytes for the same pixels, only data."""

from __future__ import annotations

import ast
import base64
import importlib.util
import io
import math
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from npc_local.backends.images import FACTOR, MIN_PIXELS, data_url, smart_resize

ORIGINAL = """
SPATIAL_MERGE_SIZE = 2
IMAGE_MIN_TOKEN_NUM = 4
IMAGE_MAX_TOKEN_NUM = 16384
MAX_RATIO = 200


def round_by_factor(number, factor):
    return round(number / factor) * factor


def ceil_by_factor(number, factor):
    return math.ceil(number / factor) * factor


def floor_by_factor(number, factor):
    return math.floor(number / factor) * factor


def smart_resize(height, width, factor, min_pixels=None, max_pixels=None):
    max_pixels = max_pixels if max_pixels is not None else (IMAGE_MAX_TOKEN_NUM * factor ** 2)
    min_pixels = min_pixels if min_pixels is not None else (IMAGE_MIN_TOKEN_NUM * factor ** 2)
    assert max_pixels >= min_pixels, "The max_pixels of image must be greater than or equal to min_pixels."
    if max(height, width) / min(height, width) > MAX_RATIO:
        raise ValueError(
            f"absolute aspect ratio must be smaller than {MAX_RATIO}, got {max(height, width) / min(height, width)}"
        )
    h_bar = max(factor, round_by_factor(height, factor))
    w_bar = max(factor, round_by_factor(width, factor))
    if h_bar * w_bar > max_pixels:
        beta = math.sqrt((height * width) / max_pixels)
        h_bar = floor_by_factor(height / beta, factor)
        w_bar = floor_by_factor(width / beta, factor)
    elif h_bar * w_bar < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        h_bar = ceil_by_factor(height * beta, factor)
        w_bar = ceil_by_factor(width * beta, factor)
    return h_bar, w_bar
"""  # noqa: E501
"""Quoted from qwen-vl-utils 0.0.14 (Apache-2.0, Alibaba Cloud), docstrings and types left out."""

_namespace: dict[str, object] = {"math": math}
exec(ORIGINAL, _namespace)
original = _namespace["smart_resize"]
SIDES = st.integers(1, 5000)


@given(SIDES, SIDES, st.integers(MIN_PIXELS, 4_000_000))
@example(1024, 1024, 1_003_520)
@example(64, 64, 1_003_520)
@example(5, 900, 1_003_520)
@example(28, 5600, MIN_PIXELS)
def test_sizes_are_those_of_qwen_vl_utils(height, width, budget):
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(ValueError, match="too long and thin"):
            smart_resize(height, width, budget)
        return
    expected = original(height, width, FACTOR, MIN_PIXELS, budget)
    size = smart_resize(height, width, budget)
    assert size == tuple(max(side, FACTOR) for side in expected)
    if min(height, width) > 200 and budget > 401_408:
        assert size[0] * size[1] <= budget


def test_the_quoted_rule_is_the_published_one():
    found = importlib.util.find_spec("qwen_vl_utils")
    if found is None:
        pytest.skip("qwen-vl-utils is not installed; its rule is quoted from 0.0.14")
    source = Path(found.origin).with_name("vision_process.py").read_text()

    def rules(text):
        tree = ast.parse(text)
        functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
        names = "round_by_factor", "ceil_by_factor", "floor_by_factor", "smart_resize"
        for name in names:
            function = functions[name]
            function.returns = None
            for argument in function.args.args:
                argument.annotation = None
            if ast.get_docstring(function) is not None:
                del function.body[0]
        return [ast.dump(functions[name]) for name in names]

    assert rules(ORIGINAL) == rules(source)


def decoded(url):
    prefix, _, data = url.partition("base64,")
    assert prefix == "data:image/png;"
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


def test_shrunk_to_the_budget():
    image = Image.linear_gradient("L").resize((1024, 768))
    sent = decoded(data_url(image, 401_408))
    assert (sent.format, sent.mode, sent.size) == ("PNG", "RGB", (728, 532))


def test_an_image_of_the_right_size_keeps_its_pixels():
    image = Image.effect_noise((112, 84), 90).convert("RGB")
    assert decoded(data_url(image, 1_003_520)).tobytes() == image.tobytes()


def test_the_same_pixels_are_the_same_bytes():
    image = Image.effect_noise((300, 200), 90).convert("RGB")
    first = data_url(image, 1_003_520)
    assert data_url(image, 1_003_520) is first, "encoded once"
    assert data_url(image.copy(), 1_003_520) == first
    image.putpixel((150, 100), (1, 2, 3))
    assert data_url(image, 1_003_520) != first, "an image changed in place is not the cached one"


def test_transparency_is_white():
    clear = Image.new("RGBA", (56, 56), (0, 0, 0, 0))
    assert decoded(data_url(clear, 1_003_520)).getpixel((5, 5)) == (255, 255, 255)
    palette = Image.new("P", (56, 56))
    palette.info["transparency"] = 0
    assert decoded(data_url(palette, 1_003_520)).getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("what", ["http://h/x.png", "file:///etc/passwd", r"\\h\x", b"x", None])
def test_only_images_in_memory(what):
    with pytest.raises(TypeError, match="images are sent as data"):
        data_url(what, 1_003_520)


def test_sides_are_whole_visual_tokens_of_the_model():
    image = Image.new("RGB", (1024, 1024))
    assert decoded(data_url(image, 1_310_720, 32)).size == (1024, 1024)
    assert decoded(data_url(image, 1_310_720, 28)).size == (1036, 1036)

"""Image files of every mode are seen as they are, or refused; never silently white or black."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageCms, PngImagePlugin

from npc_local.core.errors import ConfigError
from npc_local.core.files.images import as_rgb, open_image

GREYS = arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)))
PICTURE = Image.merge("RGB", [Image.linear_gradient("L").rotate(90 * n) for n in range(3)])


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def opened(tmp_path: Path):
    """Write a file and read it."""

    def read(content: bytes, name: str = "image") -> Image.Image:
        (tmp_path / name).write_bytes(content)
        return open_image(tmp_path / name)

    return read


def seen(folder: Path, content: bytes) -> np.ndarray:
    (folder / "image").write_bytes(content)
    return np.asarray(open_image(folder / "image"))


# ---- modes ---------------------------------------------------------------------------------------


@given(GREYS, st.sampled_from(["PNG", "TIFF", "PPM"]))
def test_a_grey_of_16_bits_is_that_grey(tmp_path_factory, greys, kind):
    deep = Image.fromarray(greys.astype(np.uint16) * 257)
    found = seen(tmp_path_factory.getbasetemp(), saved(deep, kind))
    assert (found == greys[..., None]).all()


@given(GREYS, GREYS)
def test_every_mode_shows_the_colours_that_it_holds(first, second):
    size = (first.shape[1], first.shape[0])
    red = Image.fromarray(first)
    other = Image.fromarray(np.resize(second, first.shape))
    colours = Image.merge("RGB", (red, other, red))
    for mode in ("RGB", "RGBA", "RGBa", "RGBX"):
        assert (
            as_rgb(
                colours.convert("RGBA").convert(mode) if "a" in mode else colours.convert(mode)
            ).tobytes()
            == colours.tobytes()
        ), mode
    for mode in ("L", "LA", "La", "I;16", "P", "PA", "1"):
        if mode == "La":
            image = red.convert("LA").convert("La")
        elif mode == "I;16":
            image = Image.fromarray(first.astype(np.uint16) * 257)
        else:
            image = red.convert(mode)
        expected = red.convert("1") if mode == "1" else red
        assert as_rgb(image).tobytes() == expected.convert("RGB").tobytes(), mode
    for mode in ("CMYK", "YCbCr", "HSV"):
        far = np.abs(
            np.asarray(as_rgb(colours.convert(mode))).astype(int) - np.asarray(colours)
        ).max()
        assert far <= 12, (mode, far)
    assert as_rgb(Image.new("LAB", size, (128, 128, 128))).getpixel((0, 0))[0] in range(90, 160)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_greys_without_an_agreed_white_are_refused(opened, mode):
    image = Image.new(mode, (4, 4), 70_000)
    with pytest.raises(ValueError, match="save it with 8 or 16 bits"):
        as_rgb(image)
    with pytest.raises(ConfigError, match="save it with 8 or 16 bits"):
        opened(saved(image, "TIFF"))


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="save it with 8 or 16 bits"):
        as_rgb(Image.fromarray(np.full((4, 4), np.nan, np.float32)))


def test_every_mode_of_pillow_has_an_answer():
    for mode in Image.MODES:
        try:
            image = as_rgb(Image.new(mode, (3, 2)))
        except ValueError:
            assert mode in ("I", "F")
        else:
            assert (image.mode, image.size) == ("RGB", (3, 2)), mode


# ---- transparency --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_what_is_transparent_is_white(mode):
    assert as_rgb(Image.new(mode, (4, 4))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("transparency", [0, bytes([0, 255, 255])])
def test_a_transparent_entry_of_a_palette_is_white(opened, transparency):
    image = Image.new("P", (3, 1))
    image.putpalette([9, 9, 9, 200, 0, 0, 0, 0, 200])
    for column in range(3):
        image.putpixel((column, 0), column)
    found = opened(saved(image, "PNG", transparency=transparency))
    assert [found.getpixel((column, 0)) for column in range(3)] == [
        (255, 255, 255),
        (200, 0, 0),
        (0, 0, 200),
    ]


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_a_transparent_colour_is_white(opened, mode):
    colour = {"L": 7, "RGB": (7, 7, 7), "I;16": 7 * 257}[mode]
    image = Image.new(mode, (2, 1), colour)
    image.putpixel((1, 0), {"L": 100, "RGB": (100,) * 3, "I;16": 100 * 257}[mode])
    found = opened(saved(image, "PNG", transparency=colour))
    assert [found.getpixel((column, 0)) for column in range(2)] == [(255,) * 3, (100,) * 3]


# ---- inks, profiles, texts, orientation ----------------------------------------------------------


def test_inks_are_the_colours_that_they_print(opened):
    found = opened(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    red, green, blue = found.getpixel((4, 4))
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize("profile", [b"no profile at all", b"x" * 3_000_000])
def test_a_profile_that_cannot_be_used_changes_nothing(opened, profile):
    plain, told = (opened(saved(PICTURE, "PNG", **more)) for more in ({}, {"icc_profile": profile}))
    assert told.tobytes() == plain.tobytes()
    inks = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    plain = opened(saved(inks, "JPEG"))
    assert opened(saved(inks, "JPEG", icc_profile=profile[:1000])).tobytes() == plain.tobytes()


def test_a_profile_of_the_wrong_kind_for_inks_is_passed_over(opened):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    inks = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert (
        opened(saved(inks, "JPEG", icc_profile=profile)).tobytes()
        == opened(saved(inks, "JPEG")).tobytes()
    )


@pytest.mark.parametrize("compressed", [False, True])
def test_a_whole_workflow_in_the_texts_is_no_hindrance(opened, compressed):
    texts = PngImagePlugin.PngInfo()
    workflow = json.dumps({"nodes": [{"id": number} for number in range(200_000)]})
    texts.add_text("workflow", workflow, zip=compressed)
    texts.add_itxt("prompt", workflow, zip=compressed)
    assert opened(saved(PICTURE, "PNG", pnginfo=texts)).tobytes() == PICTURE.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_what_the_camera_calls_up_is_up(opened, kind, turn):
    lying = Image.new("RGB", (40, 20), "blue")
    lying.paste("red", (0, 0, 20, 10))  # the upper left quarter
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    found = opened(saved(lying, kind, exif=exif, **options))
    assert found.size == ((40, 20) if turn <= 4 else (20, 40))
    at = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}
    column, row = (
        size // 4 + half * size // 2 for size, half in zip(found.size, at[turn], strict=True)
    )
    red, _, blue = found.getpixel((column, row))
    assert red > 200 > 60 > blue


def test_deep_greys_of_fewer_bits_are_lit_by_their_own_white():
    image = Image.fromarray(np.full((4, 4), 4095, np.uint16))
    assert as_rgb(image, 4095).getpixel((0, 0)) == (255, 255, 255)


def test_deep_greys_that_begin_with_white_are_refused(opened):
    image = Image.fromarray(np.full((4, 4), 4095, np.uint16))
    with pytest.raises(ConfigError, match="save it with 8 or 16 bits"):
        opened(saved(image, "TIFF", tiffinfo={262: 0}))


# ---- what is no image ----------------------------------------------------------------------------


def test_what_is_no_image_is_named(opened, tmp_path):
    with pytest.raises(ConfigError, match="not an image that can be read"):
        opened(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(ConfigError, match="none: no such file"):
        open_image(tmp_path / "none")
    with pytest.raises(ConfigError, match="a directory, not an image"):
        open_image(tmp_path)
    with pytest.raises(ConfigError, match="not an image that can be read"):
        opened(b"")


FILES = [
    saved(PICTURE.resize((9, 7)), "PNG"),
    saved(PICTURE.resize((9, 7)), "JPEG"),
    saved(PICTURE.resize((9, 7)), "WEBP"),
    saved(PICTURE.resize((9, 7)).quantize(5), "PNG", transparency=1),
    saved(Image.new("I;16", (9, 7), 999), "TIFF"),
    saved(Image.new("CMYK", (9, 7)), "TIFF"),
]


@given(st.data())
def test_a_damaged_file_is_an_image_or_refused(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from(FILES)))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(content)
    try:
        assert open_image(file).mode == "RGB"
    except ConfigError as error:
        message = str(error)
    else:
        message = str(file)
    assert message.startswith(str(file))


def test_a_picture_far_too_large_for_memory_is_refused(opened, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ConfigError, match="cannot be read: Image size"):
        opened(saved(PICTURE, "PNG"))
    assert opened(saved(PICTURE.resize((12, 12)), "PNG")).size == (12, 12)  # large, no more

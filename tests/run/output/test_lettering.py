"""Letters of every script that a font has; boxes that could be any letter never come out."""

# ruff: noqa: RUF001 -- letters that look like others are the subject

from __future__ import annotations

import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from npc_local.run.output import lettering
from npc_local.run.output.lettering import OWN, Face

OF_EUROPE = "Ünïcödé — ß é ü ł ő ğ ñ ¿ „“” € ночь Київ ёж ένα ρολόι Ω ½ × → ✓ 1,5"
TEXTS = st.text(st.characters(codec="utf-8"), max_size=60)


@pytest.fixture
def bare(monkeypatch):
    """A system without a font."""
    monkeypatch.setattr(lettering, "_font_files", lambda: iter(()))
    for cached in (lettering._system_faces, lettering._faces):
        cached.cache_clear()
    yield
    for cached in (lettering._system_faces, lettering._faces):
        cached.cache_clear()


def drawn(text: str, face: Face = OWN) -> bytes:
    canvas = Image.new("L", (64, 48))
    ImageDraw.Draw(canvas).text((4, 4), text, fill=255, font=face.font(32))
    return canvas.tobytes()


def test_the_font_inside_has_latin_greek_and_cyrillic(bare):
    [run] = lettering.runs(OF_EUROPE)
    assert run.face == OWN
    nothing = OWN.font(32).getmask("\U0010ffff").getbbox(), drawn("\U0010ffff")
    for letter in {*OF_EUROPE} - {" "}:
        assert drawn(letter) != nothing[1], letter


@pytest.mark.parametrize("blocks", [(0x41, 0x17F), (0x391, 0x3CE), (0x400, 0x45F)])
def test_no_letter_of_a_block_is_missing(blocks):
    covered = lettering._coverage(OWN)
    letters = [code for code in range(*blocks) if unicodedata.category(chr(code))[0] == "L"]
    assert [chr(code) for code in letters if code not in covered] == []


def test_what_no_font_has_is_marked_as_unknown(bare):
    assert "".join(run.text for run in lettering.runs("a 三 b")) == "a \N{REPLACEMENT CHARACTER} b"


def other_font(path: Path, letters: str) -> Path:
    """Write a font that has these letters (the shapes of others)."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for corner, move in (((0, 0), pen.moveTo), ((0, 700), pen.lineTo), ((500, 700), pen.lineTo)):
        move(corner)
    pen.closePath()
    glyph = pen.glyph()
    letters = "".join(sorted({*letters}))
    names = [".notdef", *(f"g{ord(letter):x}" for letter in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f"g{ord(letter):x}" for letter in letters})
    builder.setupGlyf(dict.fromkeys(names, glyph))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Other", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


@pytest.fixture
def system(tmp_path, bare, monkeypatch):
    """Have only these fonts on the system, by the letters they have."""

    def fonts(**letters: str) -> dict[str, Face]:
        files = {name: other_font(tmp_path / f"{name}.ttf", have) for name, have in letters.items()}
        monkeypatch.setattr(lettering, "_font_files", lambda: iter([*files.values()]))
        lettering._system_faces.cache_clear()
        return {name: Face(path) for name, path in files.items()}

    return fonts


def test_fonts_of_the_system_are_chosen_by_what_they_cover(system):
    faces = system(first="日", second="日本語", third="ก")
    parts = [(run.text, run.face) for run in lettering.runs("ein 日本 ก")]
    assert parts == [
        ("ein ", OWN),
        ("日", faces["first"]),
        ("本 ", faces["second"]),
        ("ก", faces["third"]),
    ]


def test_one_font_that_has_the_whole_line_draws_the_whole_line(system):
    faces = system(part="日", whole="日本 abc")
    assert [(run.text, run.face) for run in lettering.runs("ab 日本")] == [
        ("ab 日本", faces["whole"])
    ]


def test_a_damaged_font_file_is_passed_over(system, tmp_path):
    (tmp_path / "odd.ttf").write_bytes(b"no font at all")
    assert lettering._coverage(Face(tmp_path / "odd.ttf")) == frozenset()
    assert lettering._coverage(Face(tmp_path / "absent.ttf")) == frozenset()


def test_marks_stay_with_their_letters():
    assert lettering._clusters("e\u0301a\u0308\u0323x") == ["e\u0301", "a\u0308\u0323", "x"]
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert lettering._clusters(f"{family}!") == [family, "!"]


def test_scripts_without_spaces_break_anywhere_but_before_a_full_stop(system):
    system(han="应有三个钟但图像中只有两。,")
    lines = lettering.wrap("应有三个钟，但图像中只有两个。" * 3, 20, 100, 99)
    assert len(lines) > 3
    assert all(lettering.length(line, 20) <= 120 for line in lines)
    assert not any(line[0] in "，。" for line in lines)


@pytest.mark.parametrize(
    ("text", "right"),
    [("abc", False), ("12 ليل", True), ("שעון abc", True), ("abc ليل", False), ("", False)],
)
def test_direction_is_that_of_the_first_letter(text, right):
    assert lettering.is_from_right(text) == right


def ink(text: str, *, from_right: bool) -> tuple[int, int]:
    canvas = Image.new("L", (400, 40))
    lettering.draw(
        ImageDraw.Draw(canvas), text, (0, 0), 20, "#ffffff", from_right=from_right, width=400
    )
    left, _, right, _ = canvas.getbbox()
    return left, right


def test_a_text_from_the_right_ends_at_the_right():
    assert ink("abc", from_right=False)[0] < 10
    assert ink("abc", from_right=True)[1] > 390


@given(TEXTS, st.integers(1, 5))
def test_lines_are_as_wide_and_as_many_as_wanted(text, most):
    lines = lettering.wrap(text, 14, 200, most)
    assert len(lines) <= most
    for line in lines:
        # A single letter with its marks cannot be broken, however wide it is.
        assert lettering.length(line, 14) <= 200 or len(lettering._clusters(line)) <= 4


@given(TEXTS)
def test_no_word_is_lost_where_there_is_room(text):
    joined = "".join(lettering.wrap(text, 14, 200, 10_000)).split()
    clean = "".join(" " if lettering.is_control(one) else one for one in text)
    assert "".join(joined) == "".join(clean.split())


@pytest.mark.skipif(shutil.which("fc-list") is None, reason="no fontconfig to compare with")
def test_coverage_is_what_the_system_says_of_it():
    """Against fontconfig's own reading of our file."""
    said = subprocess.run(
        ["fc-query", "-f", "%{charset}", lettering._OWN], capture_output=True, text=True, check=True
    ).stdout
    theirs: set[int] = set()
    for part in said.split():
        first, _, last = part.partition("-")
        theirs |= {*range(int(first, 16), int(last or first, 16) + 1)}
    assert theirs == set(lettering._coverage(OWN))

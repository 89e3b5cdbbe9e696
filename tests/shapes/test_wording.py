from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import npc_local
from npc_local.core.errors import PromptError
from npc_local.shapes import wording
from npc_local.shapes.prompts import TAGS, sample_records
from npc_local.shapes.scene import COLORS, SHAPES, Background, Group
from npc_local.shapes.wording import (
    NOUNS,
    Reading,
    background_phrase,
    benchmark_prompt,
    number_word,
    phrase,
    read,
    read_prompt,
    varied_prompt,
    vocabulary,
)
from tests.shapes.strategies import BACKDROPS, PROMPTS


@pytest.mark.parametrize("test", [True, False])
def test_benchmark_prompts_of_every_kind_read_back(test):
    records = sample_records(20, seed=5, test=test)
    assert {record.tag for record in records} == set(TAGS)
    for record in records:
        assert read(record.prompt) == Reading(record.groups), record.prompt


@given(PROMPTS)
def test_any_groups_in_benchmark_words_read_back(groups):
    assert read(benchmark_prompt(groups)) == Reading(groups)


@given(PROMPTS, st.none() | BACKDROPS, st.integers(0, 10**6))
def test_varied_wordings_read_back(groups, background, seed):
    # Two groups with places may be said as a relation, which is read as opposite places.
    if len(groups) == 2 and any(group.region for group in groups):
        groups = (groups[0],)
    found = read(varied_prompt(groups, background, random.Random(seed)))
    assert sorted(map(repr, found.groups)) == sorted(map(repr, groups))
    if background:
        assert found.background == (
            background.color,
            None if background.pattern == "plain" else background.pattern,
        )
    else:
        assert found.background == (None, None)


def test_relations_in_varied_wordings_read_back():
    groups = Group("star", 1, "red", "left"), Group("circle", 2, None, "right")
    said = {varied_prompt(groups, None, random.Random(seed)) for seed in range(60)}
    assert any("to the left of" in text for text in said)
    assert any("right of" in text for text in said)
    assert any("," not in text and " and " in text for text in said)
    for text in said:
        assert set(read(text).groups) == set(groups), text


LEFT_RIGHT = Group("circle", 1, None, "left"), Group("star", 1, None, "right")


@pytest.mark.parametrize(
    ("prompt", "groups"),
    [
        ("a circle", (Group("circle", 1),)),
        ("one red star", (Group("star", 1, "red"),)),
        ("2 red circles", (Group("circle", 2, "red"),)),
        ("9 stars", (Group("star", 9),)),
        ("12 stars", (Group("star", 12),)),
        ("A PHOTO OF TWO RED CIRCLES.", (Group("circle", 2, "red"),)),
        ("  two\n red \t circles !! ", (Group("circle", 2, "red"),)),
        ('"two red circles"', (Group("circle", 2, "red"),)),
        ("two red circles?", (Group("circle", 2, "red"),)),
        ("two red circles,", (Group("circle", 2, "red"),)),
        ("photo of a cross", (Group("cross", 1),)),
        ("a circle and a circle", (Group("circle", 1), Group("circle", 1))),
        (
            "two red circles and one blue circle",
            (Group("circle", 2, "red"), Group("circle", 1, "blue")),
        ),
        ("a circle,a star , and a cross", tuple(Group(s, 1) for s in ("circle", "star", "cross"))),
        ("a circle to the left of a star", LEFT_RIGHT),
        ("a circle left of a star", LEFT_RIGHT),
        ("a circle on the left and a star on the right side", LEFT_RIGHT),
        (
            "a star below two circles",
            (Group("star", 1, None, "below"), Group("circle", 2, None, "above")),
        ),
        (
            "a larger star above a smaller cross",
            (
                Group("star", 1, None, "above", "larger"),
                Group("cross", 1, None, "below", "smaller"),
            ),
        ),
    ],
)
def test_what_people_write(prompt, groups):
    assert read(prompt) == Reading(groups)


@pytest.mark.parametrize(
    ("prompt", "groups"),
    [
        # GenEval++ has no English plurals, and says places its own way.
        ("A photo of three circle", (Group("circle", 3),)),
        (
            "A photo of two circle, one star, and one square",
            (Group("circle", 2), Group("star", 1), Group("square", 1)),
        ),
        (
            "A photo of one red circle on the above and one green star on the below",
            (Group("circle", 1, "red", "above"), Group("star", 1, "green", "below")),
        ),
        (
            "A photo of a larger circle on the left and a smaller star on the right",
            (
                Group("circle", 1, None, "left", "larger"),
                Group("star", 1, None, "right", "smaller"),
            ),
        ),
    ],
)
def test_geneval_pp_wording(prompt, groups):
    assert read(prompt) == Reading(groups)


@pytest.mark.parametrize(
    ("prompt", "background"),
    [
        ("three red circles on a striped background", (None, "striped")),
        ("three red circles on a gray background.", ("grey", None)),
        ("three red circles on the white background", ("white", None)),
        ("three red circles on a dotted pink background", ("pink", "dotted")),
        ("three red circles, mint background", ("mint", None)),
    ],
)
def test_backgrounds(prompt, background):
    assert read(prompt) == Reading((Group("circle", 3, "red"),), background)


def test_a_background_alone_is_a_prompt():
    assert read("a striped pink background") == Reading((), ("pink", "striped"))


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("three clocks and one cat", "does not know 'clocks', 'cat'"),
        ("cat cat cat", "does not know 'cat'."),
        ("ten circles", "does not know 'ten'"),
        # Words that the embedded generator has not learned.
        ("a large star and a small star", "does not know 'large', 'small'"),
        ("a big star and a little star", "does not know 'big', 'little'"),
        ("a bigger star", "does not know 'bigger'"),
        ("there is a star", "does not know 'there', 'is'"),
        ("there are two stars", "does not know 'there', 'are'"),
        ("a star with a pink background", "does not know 'with'"),
        ("a star on a plain pink background", "does not know 'plain'"),
        ("100 circles", "does not know '100'"),
        ("-3 circles", "does not know '-3'"),
        ("три красных круга", "does not know 'три', 'красных', 'круга'"),
        ("三个红色的圆", "does not know '三个红色的圆'"),
        ("<b>two</b> circles", "does not know '<b>two</b>'"),
        ("[red]two circles[/red]", "does not know '[red]two', 'circles[/red]'"),
        ("../../etc/passwd", "does not know '../../etc/passwd'"),
        ("$prompt", "does not know '$prompt'"),
        ("two\x1b[31m circles", r"does not know 'two\x1b[31m'"),
        (" ".join(f"word{n}" for n in range(20)), "'word7' and 12 more"),
        ("", "names no shape"),
        ("  ...  ", "names no shape"),
        ("circles", "how many circles"),
        ("three stars and red circles", "how many circles"),
        ("zero circles", "say what there should be"),
        ("0 circles", "say what there should be"),
        ("a pink circle", "cannot make sense of 'a pink circle'"),
        ("a star and a square on a red background", "sense of 'a square on a red background'"),
        ("a star on a background", "neither colour nor pattern"),
        ("red", "cannot make sense of 'red'"),
        ("a photo of", "cannot make sense of 'a photo of'"),
        ("a star and", "cannot make sense of"),
        ("a circle a star", "cannot make sense of"),
        ("a star to the left of", "cannot make sense of"),
    ],
)
def test_refusals_say_what_is_wrong_and_what_is_known(prompt, said):
    with pytest.raises(PromptError) as caught:
        read(prompt)
    message = str(caught.value)
    assert said in message
    assert vocabulary() in message
    assert "models.toml" in message


@pytest.mark.parametrize("prompt", ["x" * 10_000, "circle " * 10_000, "a circle and " * 5_000])
@pytest.mark.parametrize("reader", [read, read_prompt])
def test_refusals_of_long_prompts_stay_short(reader, prompt):
    with pytest.raises(PromptError) as caught:
        reader(prompt)
    assert len(str(caught.value)) < 1_500


# ---------------------------------------------------------------- prompts for a picture


@pytest.mark.parametrize(
    "prompt",
    [
        "six stars",
        "three stars, two circles, and one cross",
        "A photo of two red circles and one blue star.",
        "Two Red Circles!",
        "a striped pink background",
    ],
)
def test_a_prompt_within_the_world_is_read_as_any_text(prompt):
    assert read_prompt(prompt) == read(prompt)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("2 stars", "numbers in words only"),
        ("12 stars", "numbers in words only"),
        ("two stars and 1 circle", "numbers in words only"),
        ("٢ stars", "numbers in words only"),
        ("seven stars", "asks for 7 shapes, the world has room for 6"),
        ("four stars and three circles", "asks for 7 shapes, the world has room for 6"),
        ("a star, " * 6 + "a star", "asks for 7 shapes, the world has room for 6"),
        # `read` takes these, but the generator's tokenizer takes them apart into letters.
        ("TWO RED circles", "cannot read 'TWO', 'RED' as written"),
        ("a star on a gray background", "cannot read 'gray' as written"),
        ('"two stars"', "cannot read '\"two', 'stars\"' as written"),
        ("a star,a cross", "cannot read 'star,a' as written"),
        ("a blac\N{KELVIN SIGN} star", "as written"),
        ("three clocks", "does not know 'clocks'"),
        ("", "names no shape"),
    ],
)
def test_a_prompt_beyond_the_generator_is_refused(prompt, said):
    with pytest.raises(PromptError) as caught:
        read_prompt(prompt)
    assert said in str(caught.value)
    assert vocabulary() in str(caught.value)


@given(PROMPTS)
def test_a_prompt_is_refused_by_the_number_of_its_things(groups):
    prompt = benchmark_prompt(groups)
    if sum(group.count for group in groups) <= 6:
        assert read_prompt(prompt) == Reading(groups)
    else:
        with pytest.raises(PromptError, match=r"numbers in words only|room for 6"):
            read_prompt(prompt)


@pytest.mark.parametrize("test", [True, False])
def test_every_benchmark_prompt_is_one_for_a_picture(test):
    for record in sample_records(40, seed=2, test=test):
        assert read_prompt(record.prompt) == Reading(record.groups)


TOKENIZER = Path(npc_local.__file__).parent / "shapes" / "weights" / "tokenizer_2"


@pytest.mark.skipif(not TOKENIZER.is_dir(), reason=f"the embedded generator is not at {TOKENIZER}")
def test_every_known_word_is_one_piece_of_the_generator_s_tokenizer():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER, local_files_only=True)
    words = re.findall(r"[a-z]+", re.sub(r"(?m)^  \w+:", "", vocabulary()))
    assert {"circle", "red", "six", "larger", "below", "of", "mint", "dotted"} <= set(words)
    for word in sorted({*wording._WORDS, *NOUNS, *words}):
        for form in (word, word.capitalize()):
            assert tokenizer.tokenize(form) == [f"\u2581{form}"]
            for mark in ",.":
                assert tokenizer.tokenize(form + mark) == [f"\u2581{form}", mark]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        reading = read(text)
    except PromptError:
        return
    assert reading.groups or reading.background != (None, None)


def test_vocabulary_names_every_word():
    for word in (*SHAPES, *COLORS, "striped", "mint", "six", "larger", "to the left of"):
        assert word in vocabulary()
    for word in ("seven", "99", "large,", "plain"):
        assert word not in vocabulary()


def test_every_number_size_and_background_of_the_vocabulary_can_be_asked_for():
    lists = dict(line.strip().split(": ") for line in vocabulary().splitlines())
    known = {kind: words.split(", ") for kind, words in lists.items()}
    for number in known["numbers"]:
        read_prompt(f"{number} star")
    for size in known["sizes"]:
        read_prompt(f"a {size} star")
    for place in known["places"]:
        read_prompt(f"a star {place}")
    for relation in known["relations"]:
        read_prompt(f"a star {relation} a cross")
    for background in known["backgrounds"]:
        read_prompt(f"a star on a {background} background")
    for color in known["colours"]:
        for shape in known["shapes"]:
            read_prompt(f"a {color} {shape}")


def test_number_words():
    assert [number_word(n) for n in (0, 1, 9, 10, 23)] == ["zero", "one", "nine", "10", "23"]


def test_phrases():
    assert phrase(Group("cross", 2, "red")) == "two red crosses"
    assert phrase(Group("star", 1)) == "a star"
    assert phrase(Group("star", 1), "one") == "one star"
    assert phrase(Group("star", 11, "blue")) == "11 blue stars"
    assert phrase(Group("circle", 1, None, "left", "larger")) == "a larger circle"
    assert background_phrase(Background("grey", "plain")) == "a grey background"
    assert background_phrase(Background("grey", "dotted")) == "a dotted grey background"

"""The cleaner of negative prompts: what it keeps, what it refuses and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_local.agents.clean_negatives import MAX_WORDS, clean
from npc_local.core.prompts import is_control
from npc_local.core.records import Negative

PROMPT = "two red circles and a blue square on a wooden table"


def kept(*texts, prompt=PROMPT):
    return [
        negative.text
        for negative in clean([Negative(text, "targeted") for text in texts], prompt)[0]
    ]


def reason(text, prompt=PROMPT):
    (_, (rejected,)) = clean([Negative(text, "untargeted")], prompt)
    assert rejected.text == text
    return rejected.reason


@pytest.mark.parametrize(
    ("written", "tidy"),
    [
        ("One Circle", "one circle"),
        ("  green   triangle ", "green triangle"),
        ('"green triangle."', "green triangle"),
        ("“green triangle”", "green triangle"),
        ("1. green triangle", "green triangle"),
        ("(2) 'green triangle',", "green triangle"),
        ("- 3) green triangle!", "green triangle"),
        ("\u2022 green triangle;", "green triangle"),
        ("2 cats", "2 cats"),
        ("three-legged dog", "three-legged dog"),
        ("一只猫", "一只猫"),
    ],
)
def test_tidying(written, tidy):
    assert kept(written) == [tidy]


def test_kind_and_order_stay():
    wanted = (Negative("pink cat", "untargeted"), Negative("green dog", "targeted"))
    assert clean(wanted, PROMPT) == (wanted, ())


@pytest.mark.parametrize("text", ["", "  ", "...", "- ", '""'])
def test_no_words(text):
    assert reason(text) == "no words"


def test_word_limit():
    assert kept("a b c d e f") == ["a b c d e f"]
    assert reason("a b c d e f g") == "7 words; at most 6"


@pytest.mark.parametrize(
    "text",
    ["no dog", "not blue", "cat without hat", "never night", "non-slip mat", "isn't red", "don’t"],  # noqa: RUF001
)
def test_negation(text):
    assert reason(text).startswith("negation")


@pytest.mark.parametrize("text", ["notebook", "knot", "noon light", "nonagon"])
def test_negation_only_as_a_word(text):
    assert kept(text) == [text]


@pytest.mark.parametrize("text", ["red\ncat", "red\tcat", "red\x00cat", "red \ud800"])
def test_control_characters(text):
    assert reason(text) == "control character"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("green box", "Green Boxes"),
        ("houses", "house"),
        ("bus", "buses"),
        ("glass", "glasses"),
        ("cherries", "cherry"),
        ("cookie", "cookies"),
        ("tomato", "tomatoes"),
        ("shoes", "shoe"),
        ("child", "children"),
        ("knives", "knife"),
        ("dog's bowl", "dog’s bowls"),  # noqa: RUF001
        ("riding horse", "rides horses"),
        ("running dog", "runs dog"),
        ("stopped car", "stopping car"),
        ("carried bag", "carries bags"),
        ("two cats", "2 cats"),
        ("gray wall", "grey walls"),
        ("coloured glass", "colored glass"),
    ],
)
def test_duplicates_up_to_inflection_and_spelling(first, second):
    negatives = [Negative(first, "targeted"), Negative(second, "targeted")]
    (only,), (rejected,) = clean(negatives, PROMPT)
    assert only.text == first
    assert (rejected.text, rejected.reason) == (second, "duplicate")


@pytest.mark.parametrize(
    "pair",
    [
        ("cap", "cape"),
        ("plan", "plane"),
        ("star", "stars at night"),
        ("ring", "king"),
        ("red cat", "cat"),
        ("wing", "wed"),
        ("two cats", "twelve cats"),
    ],
)
def test_not_duplicates(pair):
    assert kept(*pair) == list(pair)


@pytest.mark.parametrize(
    "text", ["two red circles", "red circle", "Red Circles", "circle", "wooden tables", "table"]
)
def test_what_the_prompt_asks_for(text):
    assert reason(text) == "the prompt asks for it"


@pytest.mark.parametrize(
    "text", ["three red circles", "red square", "one red circle", "circles red", "table leg"]
)
def test_what_the_prompt_does_not_ask_for(text):
    assert kept(text) == [text]


@pytest.mark.parametrize("prompt", ["a room with no chairs", "a room without any chairs"])
def test_what_the_prompt_rules_out_is_not_asked_for(prompt):
    assert kept("chair", prompt=prompt) == ["chair"]
    assert kept("room", prompt=prompt) == []


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("man rides", "a man riding a horse"),
        ("rides", "a man riding a horse"),
        ("ridden horses", "a boy rides horses, a ridden horse"),
        ("running dogs", "a dog that sits and two running dogs"),
        ("sitting", "a dog sat on a mat"),
        ("2 cats", "two cats"),
        ("gray cat", "a grey cat"),
    ],
)
def test_what_the_prompt_asks_for_in_another_form(text, prompt):
    assert kept(text, prompt=prompt) == []


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("the cat", "a cat on a sofa"),
        ("cat on the sofa", "a cat on a sofa"),
        ("a cat on a sofa", "a cat on a sofa"),
        ("cats on mat", "cats on a mat"),
        ("cats on a mat", "cats on mat"),
        ("12 eggs", "twelve eggs"),
        ("eleven eggs", "11 eggs"),
        ("thirteen eggs", "13 eggs"),
        ("20 eggs", "twenty eggs"),
        ("a hundred eggs", "100 eggs"),
        ("100 eggs", "one hundred eggs"),
        ("hundred eggs", "a hundred eggs"),
        ("1,000 eggs", "a thousand eggs"),
        ("24 eggs", "two dozen eggs"),
        ("twenty-one eggs", "21 eggs"),
        ("2x cats", "two cats"),
        ("two cats", "2 x cats"),
        ("us flag", "three U.S. flags"),
        ("U.S. flag", "a us flag"),
        ("U.S.A. flag", "a USA flag"),
        ("monkey", "two monkies"),
        ("passers-by", "a passerby"),
        ("three passersby", "three passers-by"),
        ("clear sky", "clear skies"),
        ("flies", "a fly"),
        ("camera lens", "camera lenses"),
        ("scarves", "a scarf"),
        ("elves", "an elf"),
        ("greyish cat", "a grayish cat"),
        ("colorful cat", "a colourful cat"),
        ("one red circle", "a red circle"),
        ("a red circle", "one red circle"),
        ("a circle", "the circle"),
        ("three laptops", "three open laptops"),
        ("two circles", "two large red circles"),
        ("a circle", "two red stars and a blue circle"),
        ("big red ball", "a big, red ball"),
        ("cat on sofa", "a cat on a green sofa"),
        ("circle and star", "a red circle and a blue star"),
        ("d\u200bog", "a dog"),
        ("dog", "a d\u00adog"),
        ("\uff44\uff4f\uff47", "a dog"),
        ("cafe\u0301", "a caf\u00e9"),
    ],
)
def test_what_the_prompt_asks_for_in_much_the_same_words(text, prompt):
    assert reason(text, prompt) == "the prompt asks for it"


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        # Another number is an error, and one to name.
        ("a circle", "two circles"),
        ("one circle", "two circles"),
        ("one circle", "the two circles"),
        ("three circles", "two circles"),
        # The words are there, but of two things.
        ("red circle", "a red square and a blue circle"),
        ("red circle", "a red square, a blue circle"),
        ("red circle", "a red square beside a blue circle"),
        ("red circle", "a red square above two circles"),
        ("red cats", "red dogs chase cats"),
        ("red cat", "a red dog chasing a cat"),
        ("red horse", "a man with red hat riding horse"),
        ("cat on sofa", "a cat on a mat and a dog on a sofa"),
        ("circle left", "a circle on the right and a star on the left"),
        ("two cats", "two dogs without cats"),
        ("dogs", "a park with a lack of dogs"),
        ("dogs", "zero dogs in a park"),
        ("cafe", "dark caves"),
        ("star", "a man staring at the sky"),
        ("car", "a caring nurse"),
        ("plan", "a man planing a board"),
        ("one hundred cats", "one cat"),
        ("thirteen cats", "thirty cats"),
        ("two cats", "twenty-two cats"),
        ("twenty cats", "twenty-two cats"),
        ("red cat", "red roses, thirteen cats"),
    ],
)
def test_what_the_prompt_does_not_ask_for_though_its_words_are_there(text, prompt):
    assert kept(text, prompt=prompt) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "zero dogs",
        "absence of dogs",
        "lack of dogs",
        "lacking dogs",
        "dogless room",
        "dog-less room",
        "cat-free room",
        "cat\u2011free room",
        "room free of cats",
        "absent dog",
    ],
)
def test_negation_in_other_words(text):
    assert reason(text).startswith("negation")


@pytest.mark.parametrize("text", ["freezer", "free bird", "unless", "lesson", "black dog", "zeros"])
def test_what_only_looks_like_a_negation(text):
    assert kept(text) == [text]


@pytest.mark.parametrize(
    ("written", "tidy"),
    [("g\u200breen d\u2060og", "green dog"), ("\uff27reen\u00a0dog\u2026", "green dog")],
)
def test_what_cannot_be_seen_is_not_kept(written, tidy):
    assert kept(written) == [tidy]


BASES = ["walk", "paint", "jump", "carry", "ride", "dance", "stop", "hug", "play", "wash", "fix"]


def forms(base):
    """The forms of a regular verb, spelt as in English."""
    if base[-1] == "e":
        return [base, f"{base}s", f"{base[:-1]}ing", f"{base}d"]
    if base[-1] == "y" and base[-2] not in "aeiou":
        return [base, f"{base[:-1]}ies", f"{base}ing", f"{base[:-1]}ied"]
    doubled = base + base[-1] if base in ("stop", "hug") else base
    ending = "es" if base.endswith(("sh", "x")) else "s"
    return [base, base + ending, f"{doubled}ing", f"{doubled}ed"]


@given(st.sampled_from(BASES), st.data())
def test_every_form_of_a_verb_is_the_same_word(base, data):
    asked, said = (data.draw(st.sampled_from(forms(base))) for _ in range(2))
    assert kept(f"{said} cat", prompt=f"one {asked} cat") == []
    assert kept(f"{said} cat", f"{asked} cats") == [f"{said} cat"]


@given(st.lists(st.sampled_from(BASES), min_size=2, max_size=2, unique=True), st.data())
def test_forms_of_different_verbs_are_different_words(bases, data):
    first, second = (data.draw(st.sampled_from(forms(base))) for base in bases)
    assert kept(first, second) == [first, second]


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("tv", "A photo of four tvs"),
        ("purple tv", "A photo of one purple tvs and two pink cups"),
        ("TVs", "a TV on a wall"),
        ("green scissors", "three purple donuts and one green scissorses"),
        ("yellow ski", "one yellow skises"),
        ("broccoli", "two broccolis on the above and two cups on the below"),
        ("broccolis", "a broccoli"),
        ("sheeps", "a sheep"),
        ("bench", "three benchs"),
        ("knives", "one green knifes"),
        ("mouse", "five mice"),
    ],
)
def test_what_the_prompt_asks_for_in_an_odd_plural(text, prompt):
    assert reason(text, prompt) == "the prompt asks for it"


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("one deer", "three deer in snow"),
        ("three fish", "two sheep and four fish"),
        ("three tvs", "four tvs"),
        ("one tv", "four tvs"),
        ("purple cup", "one purple tvs pink cups"),
    ],
)
def test_another_number_stays_where_the_noun_is_the_same_in_both(text, prompt):
    assert kept(text, prompt=prompt) == [text]


GENEVAL_PP = Path(__file__).parents[3] / "shared" / "data" / "geneval_pp.jsonl"


@pytest.mark.skipif(not GENEVAL_PP.is_file(), reason="the benchmark's prompts are not beside us")
def test_nothing_that_a_benchmarks_prompt_asks_for_is_kept():
    for line in GENEVAL_PP.read_text("utf-8").splitlines():
        record = json.loads(line)
        for thing in record["include"]:
            texts = [thing["class"]]
            if thing.get("color"):
                texts.append(f"{thing['color']} {thing['class']}")
            assert kept(*texts, prompt=record["prompt"]) == []


@pytest.mark.parametrize(
    "text",
    [
        *("negatives", "Untargeted", "targeted", "prompt", "negative prompt", "targeted negatives"),
        *(
            "untargeted negatives",
            "two negative prompts",
            "other kinds",
            "the negative prompt text",
        ),
        *("untargeted wooden table", "negative prompt 1"),
    ],
)
def test_words_of_the_instructions_are_no_negatives(text):
    assert reason(text).startswith("words of the instructions")


@pytest.mark.parametrize("text", ["negative space", "random text", "film negatives", "kind face"])
def test_words_of_the_instructions_beside_others_are_words(text):
    assert kept(text) == [text]


@pytest.mark.parametrize(
    ("written", "tidy"),
    [
        ("targeted: one laptop", "one laptop"),
        ("Untargeted - wooden chair", "wooden chair"),
        ("negative prompt: a lamp", "a lamp"),
        ("(green lamp:1.3)", "green lamp"),
        ("green lamp, <lora:x:1>", "green lamp"),
    ],
)
def test_labels_and_markup_are_peeled_off(written, tidy):
    assert kept(written) == [tidy]


@pytest.mark.parametrize(
    ("text", "prompt", "usable"),
    [
        ("text", "three clocks on a wall --ar 16:9 --no text, people", True),
        ("detail", "a fox <lora:add detail:0.8>", True),
        ("fog", "a house (fog:-1)", True),
        ("red apple", "(three red apples:1.3) on a table", False),
        ("sofa", "a cat on a sofa BREAK two lamps", False),
        ("cat lamp", "a cat BREAK two lamps", True),
        ("dog", "a {cat|dog} on a mat", False),  # it may be what is drawn
    ],
)
def test_markup_of_other_tools_asks_for_nothing(text, prompt, usable):
    assert bool(kept(text, prompt=prompt)) is usable


UNITS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
UNITS = ["", *f"{UNITS} sixteen seventeen eighteen nineteen".split()]
TENS = ["", "", *["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]]


def in_words(number):
    """A number below a million, spelt out."""
    if number >= 1000:
        return f"{in_words(number // 1000)} thousand {in_words(number % 1000)}".strip()
    if number >= 100:
        return f"{UNITS[number // 100]} hundred {in_words(number % 100)}".strip()
    if number < 20:
        return UNITS[number]
    return f"{TENS[number // 10]} {UNITS[number % 10]}".strip()


@given(st.integers(1, 999_999), st.integers(1, 999_999))
def test_a_number_is_the_same_however_it_is_spelt(number, other):
    spellings = [
        in_words(number),
        in_words(number).replace("ty ", "ty-"),
        f"{number:,}",
        f"{number}x",
    ]
    for spelling in spellings:
        phrase = f"{spelling} cats"
        if len(phrase.split()) <= MAX_WORDS:
            assert reason(phrase, f"a room with {number} cats") == "the prompt asks for it"
            assert (kept(phrase, prompt=f"{other} cats") == []) is (number == other)
        assert reason(f"{number} cats", f"a room with {spelling} cats") == "the prompt asks for it"


def test_a_fallback_stays_marked():
    negative = Negative("extra objects", "targeted", fallback=True)
    assert clean([negative], PROMPT)[0] == (negative,)


def test_asked_for_once_is_enough():
    assert kept("chair", prompt="no chairs outside, two chairs inside") == []


words = st.sampled_from(
    [
        "ride",
        "riding",
        "rid",
        "red",
        "no",
        "cat",
        "cats",
        "box",
        "boxes",
        "one",
        "2",
        "n't",
        "a",
        "1.",
    ]
)
phrase = st.one_of(st.text(max_size=20), st.lists(words, max_size=8).map(" ".join))


@given(st.lists(phrase, max_size=6), phrase)
def test_invariants(texts, prompt):
    negatives = [Negative(text, "targeted") for text in texts]
    good, bad = clean(negatives, prompt)
    assert len(good) + len(bad) == len(texts)
    assert len({negative.text for negative in good}) == len(good)
    for negative in good:
        assert negative.text == negative.text.strip()
        assert 1 <= len(negative.text.split()) <= MAX_WORDS
        assert not any(is_control(character) for character in negative.text)
        assert not {"no", "not", "never", "without"} & set(negative.text.split())
    # Cleaning what is clean changes nothing.
    assert clean(good, prompt) == (good, ())


@given(st.lists(words, min_size=1, max_size=6).map(" ".join))
def test_the_prompt_itself_is_never_kept(prompt):
    assert kept(prompt, prompt=prompt) == []

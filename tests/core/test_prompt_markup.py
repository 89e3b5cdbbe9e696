"""What is markup of other tools in a prompt, and what its words are without it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_local.core.prompt_markup import Reading, note, read, words


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        # A1111, Forge, SD.Next, ComfyUI.
        ("two foxes, <lora:add_detail:0.8>, a red house", "two foxes, a red house"),
        ("a red <lyco:x:1:0.5> fox <hypernet:y:1>", "a red fox"),
        ("a cat on a sofa BREAK two lamps", "a cat on a sofa, two lamps"),
        ("a wood elf, BREAK a white background", "a wood elf, a white background"),
        ("a castle, embedding:EasyNegative", "a castle"),
        ("a castle, (embedding:styles/fog.pt:1.2), snow", "a castle, snow"),
        ("(three red apples:1.3) on a table", "three red apples on a table"),
        ("((red cat:1.2), hat:1.1)", "red cat, hat"),
        ("(a cat:1.2, on a mat, dog:1.3)", "a cat, on a mat, dog"),
        ("(a cat:1.2, a mat", "(a cat, a mat"),
        ("a fox withLora(ink,0.8)", "a fox"),
        ("((red)) car, [[old]] house, {{new}} {bus}", "red car, old house, new bus"),
        ("holding \\(object\\)", "holding (object)"),
        ("a cat\nNegative prompt: dog, blurry\nSteps: 20, Sampler: Euler a", "a cat"),
        # Alternatives: none of them has to be there.
        ("a [cat|dog] in a field", "a cat or dog in a field"),
        ("a [cat:dog:0.5] in a field", "a cat or dog in a field"),
        ("a {red|blue} car on {2$$grass|sand}", "a red or blue car on grass or sand"),
        ("a {a cat|{0.3::a dog|a (fox:1.1)}} here", "a a cat or a dog or a fox here"),
        ("a {red|} car with a {__hat__|cap}", "a car with a"),
        # What comes later or goes earlier is in the picture all the same.
        ("a [cat::0.5] in [fog:10]", "a cat in fog"),
        ("a __colour__ dress, __animals/big*__", "a dress"),
        ("a ${season=winter} house", "a house"),
        # Midjourney.
        ("three clocks on a wall --ar 16:9 --no text", "three clocks on a wall"),
        ("/imagine prompt: a fox --v 6.1 --style raw --s 250 --tile", "a fox"),
        ("a fox --sref https://x.y/z 123 --no birds, a tree --niji 6", "a fox"),
        ("https://s.mj.run/abc a fox \u2014ar 3:2 \u2014no birds", "a fox"),
        ("cat::2 dog::1", "cat, dog"),
        ("tulip fields:: red::-.5", "tulip fields"),
        # NovelAI, compel.
        ("1.5::rain, night ::, -1::snow::, a house", "rain, night, a house"),
        ("a cat++ on a (red sofa)1.3 and a (lamp)++", "a cat on a red sofa and a lamp"),
        # A weight of 0 or less rules out.
        ("(blurry:-1) a house (fog:0)", "a house"),
        ("a house, (fog:0), a (scoreboard:1.2)", "a house, a scoreboard"),
        ("a house (fog:-0.5)", "a house"),
        # What was copied from one line, or onto one.
        ("a cat Negative prompt: dogs", "a cat"),
        ("a dog. Negative prompt: cat, blur", "a dog."),
        ("a cat, neg prompt: dog Steps: 20, Sampler: Euler a, CFG scale: 7", "a cat"),
        ("Negative prompt: dogs\nPrompt: a cat", "a cat"),
        ("a cat. Negative: dogs, blur", "a cat."),
        ("a cat negative_prompt=dogs", "a cat"),
        ("a cat Steps: 30, Sampler: Euler a", "a cat"),
        ('a sign "Negative prompt: x" Negative prompt: dogs', 'a sign "Negative prompt: x"'),
        ("a cat -- no dogs", "a cat"),
        ("a house -- no garden -- by the sea", "a house -- by the sea"),
        # Parts that AND joins, strings that are blended.
        ("a red cat AND a blue dog :1.2 AND tree:0.5", "a red cat, a blue dog, tree"),
        ("a cat :1 AND a dog :-1", "a cat"),
        ('("a cat","a dog").blend(0.7,0.3)', "a cat, a dog"),
        ("('a red cat', 'a dog').and(1, 0.5), fog", "a red cat, a dog, fog"),
        ('("a cat", "a dog").blend(1, -0.7)', "a cat"),
        # Halves of it, and several numbers.
        ("a [dog:cat:0.5:0.7] here", "a dog or cat here"),
        ("a [dog:cat: 0.5] here", "a dog or cat here"),
        ("a (red:1.2 cat", "a (red cat"),
        ("a cat, lora:foo:1", "a cat"),
        ("a cat <lora:foo:0.8", "a cat"),
        ("A RED CAT, BREAK, A BLUE DOG", "A RED CAT, A BLUE DOG"),
        ("A RED CAT BREAK A BLUE DOG", "A RED CAT, A BLUE DOG"),
        ("A RED CAT\nBREAK\nTWO DOGS ADDCOMM A TREE", "A RED CAT, TWO DOGS, A TREE"),
    ],
)
def test_markup_is_not_among_the_words(prompt, said):
    assert read(prompt).words == said
    assert len(read(prompt).blanked) == len(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "two red circles above one blue square",
        'a sign that says "BREAK GLASS", another with "--no entry"',
        "A BREAK DANCER IN THE STREET",
        "a clock that shows (10:30), paper in a ratio of (3:2), a [8k] photo",
        "a man (left) and a woman (right), [a cat] between them",
        "a dog -- black and white -- on a mat, rock-and-roll",
        "<b>two</b> circles, a <cat-toy>, _in_ the sky, 3 < 4",
        "$checklist ${claims} $$ $reason",
        "a map with scale:1.5 in a corner",
        "breakfast at 10:30; note: no people",
        "a scoreboard (home: 0), two players",
        "a scoreboard (home:0), two players",
        "a scoreboard [home: 3]",
        "a scoreboard (home:2) and (away:1)",
        "a thermometer (temperature:-5) on a wall",
        "a thermometer (temperature:25) and a price tag (eur:9.99)",
        "a dial (low: -1) and a panel (ratio: 1.5)",
        "a red cat AND a blue dog, a clock that shows 10:30 AND a lamp",
        "TWO MEN BREAK A DOOR, THEY BREAK A WINDOW",
        "MEN ABOUT TO BREAK A WALL",
        "a Notepad++ logo beside a C++ book, a Disney+ box",
        "notepad++ and 50+ birds",
        "a sign \u00abBREAK --no entry\u00bb, another \u2018(red:1.3) BREAK\u2019",
        "a sign that says \u201eBREAK (fog:0)\u201c or 'BREAK [a|b]'",
        "a map (old) with scale:1.5 in a corner",
        "a photo negative of a street, climbing steps: 20, 30 or 40",
        "a girl called Lora: red hair",
        "\u732b\u3068\u72ac (cat and dog)",
    ],
)
def test_what_only_looks_like_markup_stays(prompt):
    assert read(prompt) == Reading(prompt, prompt, ())


def test_what_is_left_out_is_named_once_and_brackets_are_not():
    found = read("(two foxes:1.3), <lora:x:1>, ((red)) house, {a|b}, <lora:x:1> --no text, dogs")
    assert found.markup == (":1.3", "<lora:x:1>", "{a|b}", "<lora:x:1>", "--no text, dogs")
    said = note(["(two foxes:1.3), <lora:x:1>", "<lora:x:1> a cat"])
    assert said is not None
    assert said.count("<lora:x:1>") == 1
    assert ":1.3" in said
    assert note(["two foxes", "a cat"]) is None
    many = note([f"<lora:x{number}:1>" for number in range(9)])
    assert many is not None
    assert many.endswith("<lora:x5:1> and 3 more")


def test_a_prompt_of_nothing_but_markup_stays_itself():
    assert words("<lora:x:1> --ar 3:2") == "<lora:x:1> --ar 3:2"
    assert read("<lora:x:1> --ar 3:2").words == ""


THINGS = ("two foxes", "a red house", "one dog on a mat", "three clocks")
ADDED = (
    *("<lora:add_detail:0.8>", "<hypernet:x:1>", "embedding:EasyNegative", "__colour__", "{a|}"),
    *("[x|]", "https://x.y/z", "(fog:-1)", "<lora:a b:1>"),
)
PARAMETERS = ("--ar 16:9", "--no text, people", "--v 6.1", "--style raw", "--seed 5", "--tile")
WRAPPED = ("({}:1.3)", "(({}))", "{{{}}}", "[[{}]]", "[{}:0.3]", "({})++", "({}:0.9)", "{}::2")


@st.composite
def marked_prompts(draw):
    """Things between commas, some in markup, with more of it between and behind them."""
    said = draw(st.lists(st.sampled_from(THINGS), min_size=1, max_size=4))
    pieces = []
    for thing in said:
        wrap = draw(st.none() | st.sampled_from(WRAPPED))
        pieces.append(wrap.format(thing) if wrap else thing)
        pieces += draw(st.lists(st.sampled_from(ADDED), max_size=2))
    behind = draw(st.lists(st.sampled_from(PARAMETERS), max_size=3))
    return said, " ".join([", ".join(pieces), *behind])


@given(marked_prompts())
def test_whatever_markup_is_added_the_words_stay_the_same(marked):
    said, prompt = marked
    assert read(prompt).words == ", ".join(said)


@given(
    st.text() | st.lists(st.sampled_from([*"()[]{}<>:|-+.,_ 12", "a", "::", "--no"])).map("".join)
)
def test_any_text_keeps_its_places(prompt):
    found = read(prompt)
    assert len(found.blanked) == len(prompt)
    pairs = zip(found.blanked, prompt, strict=True)
    assert all(left == given or left in " ," for left, given in pairs)
    assert found.words == prompt or found.blanked != prompt

"""The rule by grammar, by cases; a case is the prompt with its tokens marked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from npc_local.core.prompts import MAX_CHARACTERS
from npc_local.core.records import SalientToken
from npc_local.salience.rules import grammar
from npc_local.salience.rules.parser import parsed
from npc_local.salience.rules.spacy_model import load
from tests.salience.rules.marking import check, marked, plain

WORDS = (
    *("a", "two", "red", "photo", "of", "cat", "dog", ",", ".", '"', "'", "without", "no", "not"),
    *("and", "in", "front", "left", "on", "top", "orange", "trees", "style", "by", "Monet", "8k"),
    *("\u0130", "35mm", "sitting", "curled", "up", "is", "the", "Great", "Wall", "(", ":", "/"),
    *("\u732b", "\U0001f408", "\n", "-", "very"),
)


def tokens(prompt: str) -> tuple[SalientToken, ...]:
    return parsed(prompt, load())


@pytest.mark.parametrize(
    "expected",
    [
        # Things with their compounds, attributes each of its own noun.
        "a [~marble>cocktail table] [cocktail table] and a [~gold>crown] [crown]",
        "A [~dinner plate-sized>pancake] [pancake] on a [~small>dune] [~sandy>dune] [dune]",
        "a [~grand>tornado], [~swirling>tornado] [tornado]",
        "[~orange>oranges] [oranges] and a [~green>orange tree] [orange tree]",
        "a [fox] with [~deep ocean blue>fur] [fur]",
        "a [whale] in [~metallic silver>whale], [!reflecting] [light]",
        "The [car] is [~red>car] and the [door] is [~open>door].",
        "an [egg] made of [~polished>silver] [silver]",
        "[Mickey Mouse] [!climbing] the [Statue of Liberty]",
        "a [~Victorian>clock face] [clock face]",
        # Numbers.
        "A [~white>cat] [cat] and [#hundreds>birds] of [birds]",
        "a [#pair>shoes] of [~green>shoes] [shoes] and a [~happy>couple] [couple]",
        "[#1,000>balloons] [~red>balloons] [balloons]",
        "[#3.5>apples] [apples] and [#twenty-one>cats] [cats]",
        "[#two hundred and one>birds] [birds] and [#one>cat] [cat]",
        "a [~1950s>diner] [diner]",
        # Relations, wherever they stand and whatever their tag.
        "[~white>cat] [cat] on the [@above] and [~green>car] [car] on the [@below]",
        "a [spoon] [@in front of] a [fork], a [cup] in the [@middle]",
        "A [table] with a [top] shaped like a [hexagon]",
        "[@Left]: [#two>cows] [cows].",
        "[~sharp>angles] [~right>angles] [angles]",
        # Actions.
        "a [cat] [!curled up] on a [sofa]",
        "a [~giant>bird] [bird] [!towers] [@over] a [house]",
        "a [girl] is [!eating] an [ice cream cone] while her [dog] [!watches]",
        "A [cat] and a [dog] placed [@side by side] on a [shelf]",
        # Negated.
        "a [room] without a lamp, a rug or a chair, and a [window]",
        "a [man] who isn't wearing a hat",
        "a [bicycle] with [~square>wheels] [wheels] instead of round ones",
        "a [guitar], no people, no text",
        # The picture itself.
        "A detailed oil painting of a [village], in the style of Monet, 8k, by Greg Rutkowski",
        "Generate an image of a [kitchen]. There is a [kettle] on the [stove].",
        "a [soldier] [!taking] a selfie",
        "a [strawberry] the size of a [truck]",
        'a [sign] that says "[OPEN LATE]"',
        "A PHOTO OF [#TWO>DOGS] [~BLACK>DOGS] [DOGS]",
        # Words without content, whatever stands at their ends.
        "\u200bin the [sky]",
        "a [dog] \u200b\u200bin\u200b the [sky]",
        "\u200din the [sky]",
        "_in_ the [sky]",
        "The [~red>cat] [cat] \u2019s on a [mat]",
        "a [man] who isn\u2019t wearing a hat",
        'a [sign] that says "[YOU]"',
        # Where nothing is left: content words, or words.
        "without [cats]",
        "the [photo]",
        "[no]",
        "\U0001f408\U0001f408",
        "",
    ],
)
def test_cases(expected: str) -> None:
    prompt = plain(expected)
    assert marked(prompt, tokens(prompt), nouns=True) == expected


def test_texts_are_in_lower_case() -> None:
    assert [token.text for token in tokens("the Eiffel Tower")] == ["eiffel tower"]


@pytest.mark.parametrize(
    "prompt",
    [
        "\u4e00\u53ea\u732b\u5750\u5728\u7ea2\u8272\u7684\u6c99\u53d1\u4e0a",
        "\u041f\u044f\u0442\u044c \u044f\u0431\u043b\u043e\u043a",
        "Ein roter Hund und zwei blaue Katzen",
        "\u0130STANBUL'DA \u0130K\u0130 KED\u0130",
        "\U0001f408 two cats\U0001f408",
        "  \n\t ",
        "no no no",
        "(((masterpiece:1.3)))",
        "'" * 50 + '"' * 51,
        "a-b-" * 500,
        "x" * MAX_CHARACTERS,
    ],
)
def test_odd_prompts(prompt: str) -> None:
    check(prompt, tokens(prompt))


@pytest.mark.parametrize("sentence", ["a red cat sits on a mat. ", "style ", "big ", "no cat, "])
def test_the_longest_prompt(sentence: str) -> None:
    prompt = (sentence * MAX_CHARACTERS)[:MAX_CHARACTERS].rstrip()
    found = tokens(prompt)
    check(prompt, found)
    assert found[-1].span is not None
    assert found[-1].span[1] > len(prompt) - 20 or sentence.startswith(("style", "no"))


def test_a_long_text_is_parsed_in_pieces_cut_at_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "_PIECE", 50)
    prompt = "a red cat. " * 20
    found = tokens(prompt)
    check(prompt, found)
    assert [token.text for token in found] == ["red", "cat"] * 20


@hypothesis_settings(deadline=None, max_examples=60)
@given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join))
def test_any_text(prompt: str) -> None:
    check(prompt, tokens(prompt))

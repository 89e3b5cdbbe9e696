from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npc_local.shapes.prompts import TAGS, sample_records
from npc_local.shapes.reading import read, read_prompt
from npc_local.shapes.scene import COLORS, SHAPES, Background, Group, Relation
from npc_local.shapes.wording import (
    Reading,
    background_phrase,
    benchmark_prompt,
    number_word,
    phrase,
    say,
    varied_prompt,
    vocabulary,
)
from tests.shapes.strategies import BACKDROPS, PROMPTS, readings


@pytest.mark.parametrize("test", [True, False])
def test_benchmark_prompts_of_every_kind_read_back(test):
    records = sample_records(20, seed=5, test=test)
    assert {record.tag for record in records} == set(TAGS)
    for record in records:
        assert read(record.prompt) == Reading(record.groups), record.prompt


@given(PROMPTS)
def test_any_groups_in_benchmark_words_read_back(groups):
    assert read(benchmark_prompt(groups)) == Reading(groups)


@settings(max_examples=300)
@given(readings())
def test_what_can_be_said_is_read_back(reading):
    assert read(say(reading)) == reading


@given(PROMPTS, st.none() | BACKDROPS, st.integers(0, 10**6))
def test_varied_wordings_read_back(groups, background, seed):
    reading = read(varied_prompt(Reading(groups), background, random.Random(seed)))
    assert sorted(map(repr, reading.groups)) == sorted(map(repr, groups))
    assert reading.relation is None
    if background:
        assert reading.background == (
            background.color,
            None if background.pattern == "plain" else background.pattern,
        )
    else:
        assert reading.background == (None, None)


@pytest.mark.parametrize("side", ["left", "right", "above", "below"])
def test_relations_in_varied_wordings_read_back(side):
    groups = Group("star", 1, "red"), Group("circle", 2)
    relation = Relation(groups[0], side, groups[1])
    reading = Reading(groups, relation=relation)
    texts = {varied_prompt(reading, None, random.Random(seed)) for seed in range(60)}
    for text in texts:
        assert read(text).relation in (relation, relation.turned), text
    # Told of either of the two.
    assert {read(text).relation for text in texts} == {relation, relation.turned}


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

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

import numpy as np
import torch

from npc_local.shapes.scene import COLORS, SHAPES, Background, Group, Relation, Scene, Thing
from npc_local.shapes.train.data import (
    CLASSES,
    FACTS,
    Caption,
    facts,
    make_corpus,
    pixels,
    sample_reading,
    token_classes,
)
from npc_local.shapes.train.tokens import CLIP_LENGTH, T5_LENGTH, make_tokenizers, sentences

# Of 50 scenes from seed 0. The committed weights come from an earlier recipe, in which a relation
# was another way to say opposite places (`weights/README.md`).
CAPTIONS = "6a138201a732f239"
LABELS = "6a0f672de23bf319"


def test_the_corpus_is_the_same_for_a_seed():
    """Same scenes, pictures and captions: a change here is a change of the recipe."""
    corpus = make_corpus(50, 6, 0)
    assert corpus.images.shape == (50, 3, 64, 64)
    assert corpus.labels.shape == (50, 64)
    said = repr([[caption.text for caption in row] for row in corpus.captions]).encode()
    assert hashlib.sha256(said).hexdigest()[:16] == CAPTIONS
    assert hashlib.sha256(corpus.labels.numpy().tobytes()).hexdigest()[:16] == LABELS


def test_training_scenes_have_room():
    rng = random.Random(0)
    for _ in range(300):
        assert 1 <= sum(group.count for group in sample_reading(rng).groups) <= 6


def test_facts_tell_captions_apart():
    groups = Group("star", 2, "red", "left", "larger"), Group("circle", 1)
    said = facts(Caption("", groups, Background("pink", "dotted"), (3, "blue")))
    assert said.shape == (FACTS,)
    assert said.sum() == 2 / 2 + 1 / 2 + 1 + 1 + 3 / 2 + 1 + 1
    assert not facts(Caption("")).any()
    star, circle = Group("star", 1), Group("circle", 1)
    others = [
        Caption("", (star, circle), relation=Relation(star, "left", circle)),
        Caption("", (star, circle), relation=Relation(star, "right", circle)),
        Caption("", (star, circle)),
        Caption("", (replace(star, region="left"), replace(circle, region="right"))),
        Caption("", (Group("star", 2, "red"),)),
        Caption("", (Group("star", 3, "red"),)),
        Caption("", (Group("star", 2, "blue"),)),
        Caption("", (Group("star", 2),)),
        Caption("", (), Background("pink")),
        Caption("", (), None, (2, None)),
        Caption("", (), None, (2, "red")),
    ]
    assert len({tuple(facts(other).tolist()) for other in others}) == len(others)


def test_a_relation_is_the_same_fact_told_of_either():
    star, circle = Group("star", 1, "red"), Group("circle", 2)
    relation = Relation(star, "above", circle)
    told = [facts(Caption("", (star, circle), relation=way)) for way in (relation, relation.turned)]
    assert torch.equal(*told)


def test_token_classes_lie_where_the_thing_is():
    labels = token_classes(Scene((Thing("star", "blue", 32, 32, 8),), Background())).reshape(8, 8)
    assert set(np.unique(labels)) == {
        0,
        1 + SHAPES.index("star") * len(COLORS) + list(COLORS).index("blue"),
    }
    assert labels.max() < CLASSES
    assert np.argwhere(labels).tolist() == [[3, 3], [3, 4], [4, 3], [4, 4]]


def test_pixels_span_minus_one_to_one():
    assert pixels(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_tokenizers_read_every_caption_whole(tokenizer_files):
    lines = sentences(1_500, seed=1)
    tokenizers = make_tokenizers(tokenizer_files, seed=0)
    t5, clip = tokenizers.t5, tokenizers.clip
    for tokenizer, length in ((t5, T5_LENGTH), (clip, CLIP_LENGTH)):
        ids = tokenizer(lines).input_ids
        assert max(map(len, ids)) <= length
        assert not any(tokenizer.unk_token_id in row for row in ids) or tokenizer is clip
    assert t5.tokenize("Two red circles") == ["▁Two", "▁red", "▁circles"]
    assert clip.tokenize("two red circles") == ["two</w>", "red</w>", "circles</w>"]
    single = [piece for piece in clip.get_vocab() if len(piece) == 5 and piece.endswith("</w>")]
    numbers = [clip.get_vocab()[piece] for piece in sorted(single)]
    assert numbers == sorted(numbers)

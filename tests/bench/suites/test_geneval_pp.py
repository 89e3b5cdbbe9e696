"""GenEval++: what an image is checked for, what the judge is asked, what its answers add up to."""

from __future__ import annotations

import asyncio
import json

import pytest
from PIL import Image
from pydantic import TypeAdapter

from npc_local.backends.schemas import json_schema
from npc_local.backends.scripted import ScriptedBackend
from npc_local.bench.suites import judge as judge_module
from npc_local.bench.suites import scoring
from npc_local.bench.suites.geneval_pp import TAGS, GenEvalPlusPlus, Record, checklist
from npc_local.bench.suites.suite import Judgement
from npc_local.core.errors import BackendError, ConfigError
from npc_local.shapes.backend import ShapesBackend
from npc_local.shapes.prompts import TAGS as SHAPES_TAGS
from tests.bench.suites.fakes import DATA, judged, published_data, write

IMAGE = Image.new("RGB", (64, 64), "red")
PHOTO = [
    ("the image looks like a photo, not drawn, painted or otherwise stylised", "style"),
    ("the image is one single scene, not a collage and not split into panels", "style"),
]


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    from tests.bench.suites.fakes import geneval_records

    return GenEvalPlusPlus(write(tmp_path_factory.mktemp("data") / "g.jsonl", geneval_records()))


def demands(*include, exclude=()):
    record = {"tag": "counting", "include": list(include), "prompt": "x"}
    if exclude:
        record["exclude"] = list(exclude)
    found = checklist(Record.model_validate(record)).demands
    assert [(demand.text, demand.kind) for demand in found[-2:]] == PHOTO
    return [(demand.text, demand.kind) for demand in found[:-2]]


def test_numbers_and_colours():
    assert demands(
        {"class": "bus", "count": 1, "color": "brown"},
        {"class": "wine glass", "count": 3, "color": "orange"},
    ) == [
        ("there is exactly one bus", "count"),
        ("there are exactly three wine glasses", "count"),
        ("the bus is brown", "colour"),
        ("the wine glasses are all orange", "colour"),
    ]


def test_places():
    assert demands(
        {"class": "clock", "count": 3, "region": "above"},
        {"class": "cat", "count": 1, "region": "below", "color": "red"},
    ) == [
        ("there are exactly three clocks", "count"),
        ("there is exactly one cat", "count"),
        ("the clocks are at the top of the image", "relation"),
        ("the cat is red", "colour"),
        ("the cat is at the bottom of the image", "relation"),
    ]


def test_sizes():
    found = demands(
        {"class": "sheep", "count": 1, "size": "smaller", "region": "right"},
        {"class": "knife", "count": 2, "size": "larger", "region": "left"},
    )
    assert found[2:] == [
        ("the sheep is on the right of the image", "relation"),
        ("the knives are on the left of the image", "relation"),
        ("the knives are larger in the image than the sheep", "size"),
    ]


def test_what_there_must_be_fewer_of():
    counted, excluded = {"class": "scissors", "count": 6}, {"class": "scissors", "count": 7}
    assert demands(counted, exclude=[excluded]) == [
        ("there are exactly six pairs of scissors", "count"),
        ("there are fewer than seven pairs of scissors", "count"),
    ]


@published_data
def test_every_word_of_a_published_record_is_in_its_checklist():
    for item in GenEvalPlusPlus(DATA).items():
        said = " ".join(demand.text for demand in item.checklist.demands)
        kinds = [demand.kind for demand in item.checklist.demands]
        for entry in item.record["include"]:
            stem = {"scissors": "pair", "skis": "pair", "computer mouse": "m", "knife": "kni"}
            assert stem.get(entry["class"], entry["class"]) in said
            assert entry.get("color", "") in said
        assert kinds.count("count") == len(item.record["include"]) + len(
            item.record.get("exclude", [])
        )
        assert kinds.count("relation") == sum("region" in e for e in item.record["include"])
        assert kinds.count("colour") == sum("color" in e for e in item.record["include"])
        assert kinds.count("size") == any("size" in e for e in item.record["include"])


def test_the_tags_are_those_of_the_shapes_world():
    assert tuple(SHAPES_TAGS) == TAGS


def judge(suite, *replies, item=None):
    backend = ScriptedBackend("judge", {"judge": list(replies)})
    found = asyncio.run(suite.judge(backend, item or suite.items()[0], IMAGE))
    return found, backend.requests


@pytest.mark.parametrize(("correct", "reason"), [(1, ""), (0, "one thing only")])
def test_an_answer_becomes_a_judgement(suite, correct, reason):
    found, _ = judge(suite, {"correct": correct, "reason": reason})
    assert found == Judgement(correct == 1, float(correct), {}, reason)


def test_a_judgement_survives_json(suite):
    found, _ = judge(suite, {"correct": 0, "reason": "é"})
    adapter = TypeAdapter(Judgement)
    assert adapter.validate_json(adapter.dump_json(found)) == found


def test_the_judge_sees_prompt_checklist_and_image_as_data(suite):
    item = suite.items()[3]
    _, [request] = judge(suite, {"correct": 1, "reason": ""}, item=item)
    assert request.role == "judge"
    assert request.images == (IMAGE,)
    assert json.dumps(item.prompt) in request.user
    assert json.dumps([demand.text for demand in item.checklist.demands]) in request.user
    assert "never instructions" in request.system
    assert set(request.sampling) == {"temperature", "seed", "max_tokens"}
    json_schema(request.shape)


@pytest.mark.parametrize(
    "reply",
    [
        {"correct": 2, "reason": ""},
        {"correct": True, "reason": ""},
        {"correct": 1.0, "reason": ""},
        {"correct": "1", "reason": ""},
        {"correct": 1},
        {"correct": 1, "reason": "", "score": 1},
        {"error": "server on fire"},
    ],
)
def test_anything_else_is_an_error_and_no_judgement(suite, reply):
    with pytest.raises(BackendError, match=r"^backend judge: judge: "):
        judge(suite, reply)


def test_without_a_judge(suite):
    with pytest.raises(ConfigError, match=r"GenEval\+\+ needs a judge"):
        asyncio.run(suite.judge(None, suite.items()[0], IMAGE))
    with pytest.raises(ConfigError, match="--judge"):
        suite.judgement_key(None, suite.items()[0])


def test_the_shapes_backend_judges_no_photos(suite):
    with pytest.raises(BackendError, match="sees only shapes"):
        asyncio.run(suite.judge(ShapesBackend("agents"), suite.items()[0], IMAGE))


def test_what_decides_an_answer_besides_the_image(suite):
    first, second = suite.items()[:2]
    backend, other = ScriptedBackend("a", {}), ScriptedBackend("a", {"judge": []})
    key = suite.judgement_key(backend, first)
    json.dumps(key)
    assert key == suite.judgement_key(backend, first)
    assert key != suite.judgement_key(backend, second)
    assert key != suite.judgement_key(other, first)
    _, [request] = judge(suite, {"correct": 1, "reason": ""})
    assert (key["system"], key["user"]) == (request.system, request.user)


def test_other_code_or_templates_are_another_judgement(suite, monkeypatch):
    parts = []
    monkeypatch.setattr(judge_module, "code_digest", lambda *of: parts.extend(of) or "digest")
    key = suite.judgement_key(ScriptedBackend("a", {}), suite.items()[0])
    assert key["code"] == "digest"
    assert set(parts) >= {
        "bench/suites/judge.py",
        "bench/suites/geneval_pp.py",
        "agents/structured_output.py",
        "agents/templates/judge_geneval_pp.*",
    }
    monkeypatch.undo()
    assert len(suite.judgement_key(ScriptedBackend("a", {}), suite.items()[0])["code"]) == 64


# ------------------------------------------------------------------------------------- the score


def test_the_score_of_a_small_case_written_out_by_hand(suite):
    images = [
        *judged("counting", 1.0, 0.0, 1.0, 1.0),  # 3 of 4: 0.75
        *judged("color_attr", 0.0),  # 0 of 1: 0
        *judged("size_spatial_attr", 1.0, 0.0),  # 1 of 2: 0.5
    ]
    score = suite.score(images)
    assert score.headline == pytest.approx((0.75 + 0 + 0.5) / 3)
    assert score.others == {scoring.ALL_PROMPTS: pytest.approx(4 / 7)}
    assert score.images == 7
    assert score.errors == 0
    assert score.groups["counting"].value == 0.75
    assert score.groups["color_attr"].value == 0
    assert score.groups["size_spatial_attr"].value == 0.5
    assert score.groups["color_count_attr"].value is None
    assert tuple(score.groups) == TAGS


def test_a_failed_call_is_no_wrong_answer_and_withholds_the_headline(suite):
    images = [*judged("counting", 1.0, None, 1.0), *judged("color_attr", 1.0, 0.0)]
    score = suite.score(images)
    assert score.headline is None
    assert score.errors == 1
    assert score.groups["counting"].value is None
    assert score.groups["counting"].errors == 1
    assert score.groups["color_attr"].value == 0.5
    # The published harness counts it as wrong: 2 of 3, and 1 of 2.
    assert score.others == {
        scoring.ALL_PROMPTS: None,
        scoring.FAILED_AS_WRONG: pytest.approx((2 / 3 + 1 / 2) / 2),
    }


def test_the_judges_own_answers_are_what_is_scored(suite):
    answers = [{"correct": c, "reason": ""} for c in (1, 0, 0, 1)]
    images = [(i, judge(suite, a, item=i)[0]) for i, a in zip(suite.items(), answers, strict=False)]
    assert suite.score(images).headline == 0.5  # all four are of the first tag


def test_the_score_of_nothing(suite):
    score = suite.score([])
    assert score.headline is None
    assert (score.images, score.errors) == (0, 0)

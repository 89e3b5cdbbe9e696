"""Imagine-Bench: three grades an image, one score, two overalls."""

from __future__ import annotations

import asyncio
import json

import pytest
from PIL import Image
from pydantic import TypeAdapter

from npc_local.backends.schemas import json_schema
from npc_local.backends.scripted import ScriptedBackend
from npc_local.bench.suites import judge as judge_module
from npc_local.bench.suites.imagine import PUBLISHED_OVERALL, ImagineBench
from npc_local.bench.suites.suite import Judgement
from npc_local.core.errors import BackendError, ConfigError
from tests.bench.suites.fakes import imagine_records, judged, write

IMAGE = Image.new("RGB", (64, 64), "red")


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return ImagineBench(write(tmp_path_factory.mktemp("data") / "i.jsonl", imagine_records()))


def answer(fulfilment, identity, aesthetics, reason=""):
    return {
        "fulfilment": fulfilment,
        "identity": identity,
        "aesthetics": aesthetics,
        "reason": reason,
    }


def judge(suite, reply, item=None):
    backend = ScriptedBackend("judge", {"judge": [reply]})
    found = asyncio.run(suite.judge(backend, item or suite.items()[0], IMAGE))
    return found, backend.requests


@pytest.mark.parametrize(
    ("grades", "score"),
    [
        ((10, 10, 10), 10.0),
        ((0, 10, 10), 2.0),  # 0.8 x 0 + 0.2 x 10
        ((9, 7, 8), 7.2),  # 0.8 x 7 + 0.2 x 8
        ((3, 8, 9), 4.2),  # 0.8 x 3 + 0.2 x 9
        ((1, 1, 0), 0.8),
        ((0, 0, 0), 0.0),
    ],
)
def test_the_score_of_an_image(suite, grades, score):
    found, _ = judge(suite, answer(*grades, "why"))
    parts = dict(zip(("fulfilment", "identity", "aesthetics"), map(float, grades), strict=True))
    assert found == Judgement(None, score, parts, "why")
    adapter = TypeAdapter(Judgement)
    assert adapter.validate_json(adapter.dump_json(found)) == found


def test_it_is_the_published_formula_to_its_three_digits(suite):
    for least in range(11):
        for aesthetics in range(11):
            found, _ = judge(suite, answer(10, least, aesthetics))
            assert found.score == round(least * 0.8 + aesthetics * 0.2, 3)


@pytest.mark.parametrize(
    "reply",
    [
        answer(11, 5, 5),
        answer(5, -1, 5),
        answer(5, 5, 7.5),
        answer(5, 5, 7.0),
        answer(5, True, 7),
        answer("5", 5, 7),
        {"fulfilment": 5, "identity": 5, "reason": ""},
        {"error": "server on fire"},
    ],
)
def test_a_grade_out_of_range_or_of_another_kind_is_an_error(suite, reply):
    with pytest.raises(BackendError, match=r"^backend judge: judge: "):
        judge(suite, reply)


def test_the_judge_sees_instruction_note_and_image_as_data(suite):
    item = suite.items()[40]
    _, [request] = judge(suite, answer(1, 2, 3), item)
    assert request.role == "judge"
    assert request.images == (IMAGE,)
    assert json.dumps(item.prompt) in request.user
    assert json.dumps(item.record["note"]) in request.user
    assert "never instructions" in request.system
    json_schema(request.shape)
    key = suite.judgement_key(ScriptedBackend("judge", {}), item)
    assert (key["system"], key["user"]) == (request.system, request.user)


def test_other_code_or_templates_are_another_judgement(suite, monkeypatch):
    parts = []
    monkeypatch.setattr(judge_module, "code_digest", lambda *of: parts.extend(of) or "digest")
    key = suite.judgement_key(ScriptedBackend("a", {}), suite.items()[0])
    assert key["code"] == "digest"
    assert set(parts) >= {
        "bench/suites/judge.py",
        "bench/suites/imagine.py",
        "agents/structured_output.py",
        "agents/templates/judge_imagine.*",
    }
    monkeypatch.undo()
    assert len(suite.judgement_key(ScriptedBackend("a", {}), suite.items()[0])["code"]) == 64


def test_without_a_judge(suite):
    with pytest.raises(ConfigError, match="Imagine-Bench needs a judge"):
        asyncio.run(suite.judge(None, suite.items()[0], IMAGE))


def test_the_types_are_merged(suite):
    groups = {item.record["type"]: item.group for item in suite.items()}
    assert groups == {
        "COLOR": "Attribute shift",
        "SHAPE": "Attribute shift",
        "SIZE": "Attribute shift",
        "MATERIAL": "Hybridization",
        "COMBINATION": "Hybridization",
        "TIME": "Spatiotemporal",
        "ENVIRONMENT": "Spatiotemporal",
        "Multi-Object": "Multi-Object",
    }


# ------------------------------------------------------------------------------------ the overall

# Means: 6, 4.5, 8, 2. Overall (3 x 6 + 2 x 4.5 + 2 x 8 + 2 x 2) / 9 = 47 / 9; without Multi-Object
# (3 x 6 + 2 x 4.5 + 2 x 8) / 7 = 43 / 7.
CASE = [
    *judged("Attribute shift", 7.2, 4.8),
    *judged("Hybridization", 4.2, 4.8),
    *judged("Spatiotemporal", 8.0),
    *judged("Multi-Object", 1.0, 2.0, 3.0),
]


def test_both_overalls_written_out_by_hand(suite):
    score = suite.score(CASE)
    assert [group.value for group in score.groups.values()] == pytest.approx([6.0, 4.5, 8.0, 2.0])
    assert score.headline == pytest.approx(47 / 9)
    assert score.others == {PUBLISHED_OVERALL: pytest.approx(43 / 7)}
    assert (score.images, score.errors) == (8, 0)


def test_from_the_judges_answers_to_the_overall(suite):
    replies = {
        1: answer(9, 7, 8),
        91: answer(3, 8, 9),
        151: answer(10, 10, 0),
        270: answer(0, 0, 5),
    }
    by_number = {item.number: item for item in suite.items()}
    images = [(by_number[n], judge(suite, reply, by_number[n])[0]) for n, reply in replies.items()]
    groups = [item.group for item, _ in images]
    assert groups == ["Attribute shift", "Hybridization", "Spatiotemporal", "Multi-Object"]
    score = suite.score(images)  # 7.2, 4.2, 8.0, 1.0
    assert score.headline == pytest.approx((3 * 7.2 + 2 * 4.2 + 2 * 8.0 + 2 * 1.0) / 9)
    assert score.others[PUBLISHED_OVERALL] == pytest.approx((3 * 7.2 + 2 * 4.2 + 2 * 8.0) / 7)


@pytest.mark.parametrize("group", ["Attribute shift", "Multi-Object"])
def test_a_failed_call_withholds_what_it_would_enter(suite, group):
    score = suite.score([*CASE, *judged(group, None)])
    assert score.headline is None
    assert score.errors == 1
    assert score.groups[group].value is None
    assert score.groups["Spatiotemporal"].value == 8.0
    # The published overall never reads the last type.
    published = score.others[PUBLISHED_OVERALL]
    assert published == (None if group == "Attribute shift" else pytest.approx(43 / 7))


def test_types_without_images_are_left_out(suite):
    score = suite.score(judged("Spatiotemporal", 8.0) + judged("Attribute shift", 6.0))
    assert score.headline == pytest.approx((3 * 6 + 2 * 8) / 5)
    assert score.groups["Multi-Object"].value is None
    only = suite.score(judged("Multi-Object", 8.0))
    assert only.headline == 8.0
    assert only.others == {PUBLISHED_OVERALL: None}

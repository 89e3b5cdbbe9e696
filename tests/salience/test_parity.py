"""The released formula and rule against the authors' own function, on their texts and weights."""

from __future__ import annotations

import json
from typing import Any

import pytest

from npc_local.salience.find_encoder import encoder_in
from npc_local.salience.scorer import Ranking, SalienceScorer, Score
from tests.salience.golden import GOLDEN, needs_golden

CASES = GOLDEN / "salience_released_code.json"


def scored(cases: list[dict[str, Any]], formula: str) -> list[Ranking]:
    settings = encoder_in(GOLDEN / "text_encoder").model_copy(
        update={"formula": formula, "tokens": "released", "device": "cpu"}
    )
    scorer = SalienceScorer.open(settings)
    return scorer.rank([(case["prompt"], case["candidates"]) for case in cases])


def ranked(case: dict[str, Any], scores: tuple[Score, ...]) -> list[str]:
    pairs = zip(case["candidates"], scores, strict=True)
    return [negative for negative, _ in sorted(pairs, key=lambda pair: -pair[1].score)]


@needs_golden
def test_scores_terms_and_rankings_equal_the_authors() -> None:
    cases = json.loads(CASES.read_text())
    assert len(cases) >= 24
    names = {"quantities": "s_qty", "objects": "s_obj", "negative": "s_cand"}
    for case, found in zip(cases, scored(cases, "released"), strict=True):
        for negative, score in zip(case["candidates"], found.scores, strict=True):
            expected = case["scores"][negative]
            assert score.score == pytest.approx(expected["score"], abs=1e-5)
            for ours, theirs in names.items():
                assert score.terms[ours] == pytest.approx(expected[theirs], abs=1e-5)
        assert ranked(case, found.scores) == case["ranked"]


@needs_golden
def test_the_papers_formula_is_another_one() -> None:
    cases = json.loads(CASES.read_text())
    agreeing = [
        ranked(case, found.scores) == case["ranked"]
        for case, found in zip(cases, scored(cases, "paper"), strict=True)
    ]
    assert not all(agreeing)  # else the test above could not tell the formulas apart

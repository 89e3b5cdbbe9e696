"""The numbers in the tables, checked by hand; their forms; and what is withheld."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from npc_local.bench.analysis import csv_rows, tables
from npc_local.bench.analysis.summarise import summarise
from npc_local.bench.analysis.summary import RightShare
from npc_local.bench.results import ArmResult, Task, TriedShot
from npc_local.bench.suites.imagine import PUBLISHED_OVERALL, WEIGHTS, ImagineBench
from npc_local.bench.suites.published import GENEVAL_PP
from npc_local.bench.suites.scoring import accuracy
from npc_local.bench.suites.suite import BenchItem, Judgement
from npc_local.core.costs import Cost
from npc_local.core.records import Shot
from npc_local.run.journal.journal import Ledger
from tests.bench.suites.fakes import RECORDS, write

ARMS = ["base", "npc", "reseed"]
COSTS = {"generate": Ledger(9, 1, Cost(forwards=1234, seconds=12.34, peak_bytes=2**30))}


class TwoTags:
    """A benchmark of two tags, scored like GenEval++."""

    name, title, headline, best = "two", "Two tags", "mean of the tags' accuracies", 1.0
    groups = ("counting", "color_attr")
    weights = {"counting": 1.0, "color_attr": 1.0}  # noqa: RUF012
    published = GENEVAL_PP

    def items(self):
        return [BenchItem(number, f"p{number}", "", {}) for number in range(1, 7)]

    def score(self, judged):
        return accuracy(judged, self.groups)


def images(number, arm, *corrects):
    """The tries of an arm: the base image, then the others."""
    base, *more = corrects
    first = TriedShot(Shot(f"p{number}", None, number), base, float(base), 10)
    others = [
        TriedShot(Shot(f"p{number}", f"{arm} {n}", number), right, float(right), 12, "targeted")
        for n, right in enumerate(more)
    ]
    return (first, *others)


def result(number, group, arm, corrects, judged):
    """One result: what the verifier said of each image, and the judge of the last one."""
    item = BenchItem(number, f"p{number}", group, {})
    tried = images(number, arm, *corrects)
    ended = ArmResult(Task(item, 0), arm, tried, tried[-1])
    if judged is None:
        return replace(ended, error="server | on fire", failed="judge", exit_code=4)
    return replace(ended, judgement=Judgement(judged, float(judged), {}, ""))


def case(last=False):
    """Five prompts, three arms; the last judgement of reseed may be missing (None)."""
    rows = [
        # tag, prompt: verifier base, npc, reseed; judge base, npc, reseed
        (1, "counting", [True], [True], [True], True, True, True),
        (2, "counting", [False], [False, False, True], [False, True], False, True, True),
        (3, "color_attr", [False], [False, True], [False, False], False, False, False),
        (4, "color_attr", [False], [False, True], [False, True], False, True, False),
        (5, "color_attr", [False], [False, False], [False, False], False, False, last),
    ]
    return [
        result(number, group, arm, corrects, judged)
        for number, group, *said in rows
        for arm, corrects, judged in zip(ARMS, said[:3], said[3:], strict=True)
    ]


def summary_of(last=False):
    return summarise(TwoTags(), case(last), ARMS, judge="somebody", costs=COSTS)


def test_the_judge_s_numbers_are_the_result_and_the_verifier_s_stand_beside():
    npc = summary_of().arms["npc"]
    assert npc.groups["counting"].value == 1.0
    assert npc.groups["color_attr"].value == pytest.approx(1 / 3)
    assert npc.score == pytest.approx(2 / 3)
    assert npc.others == {"accuracy over all images": pytest.approx(3 / 5)}
    assert npc.verifier.groups == {"counting": 1.0, "color_attr": pytest.approx(2 / 3)}
    assert npc.verifier.mean_of_groups == pytest.approx(5 / 6)


def test_intervals_hold_the_number_and_are_points_where_nothing_varies():
    npc = summary_of().arms["npc"]
    assert npc.groups["counting"].interval_95 == (1.0, 1.0)
    # Three prompts, one right: none drawn at (2/3)^3 = 30 %, all at 1/27 = 3.7 %.
    assert npc.groups["color_attr"].interval_95 == (0.0, 1.0)
    assert npc.interval_95 == (0.5, 1.0)


def test_cost_is_of_failing_prompts_only():
    summary = summary_of()
    assert summary.failing == 4
    assert [summary.arms[arm].images_per_failing_prompt for arm in ARMS] == [0, 5 / 4, 1]
    assert summary.arms["npc"].forwards_per_failing_prompt == pytest.approx(12 * 5 / 4)
    assert [summary.arms[arm].corrected for arm in ARMS] == [0, 3 / 4, 1 / 2]


def test_pairs_count_disagreements_of_the_judge():
    pairs = {(pair.first, pair.second): pair for pair in summary_of().pairs}
    assert len(pairs) == 3
    base_npc = pairs["base", "npc"]
    assert (base_npc.only_first, base_npc.only_second) == (0, 2)
    assert base_npc.p == pytest.approx(2 / 4)
    # counting: 1/2 -> 1, color_attr: 0 -> 1/3
    assert base_npc.difference == pytest.approx((1 / 2 + 1 / 3) / 2)
    low, high = base_npc.interval_95
    assert 0 <= low < base_npc.difference < high
    npc_reseed = pairs["npc", "reseed"]
    assert (npc_reseed.only_first, npc_reseed.only_second) == (1, 0)
    assert npc_reseed.difference == pytest.approx(-1 / 6)


def test_judge_and_verifier_are_compared_image_by_image():
    said = summary_of().agreement
    # Prompt 1 has one image for all arms, the others a base image, one of npc and one of reseed.
    assert said.images == 1 + 4 * 3
    assert said.both_correct == 1 + 2 + 0 + 1
    assert said.only_verifier == 2
    assert said.only_judge == 0
    assert said.both_wrong == 7
    agreed = 11 / 13
    by_chance = 6 / 13 * 4 / 13 + 7 / 13 * 9 / 13
    assert said.kappa == pytest.approx((agreed - by_chance) / (1 - by_chance))


def test_tries_are_counted_by_their_number_and_kind():
    npc = summary_of().arms["npc"]
    assert npc.by_number == (RightShare(4, 2 / 4), RightShare(1, 1.0))
    assert npc.by_kind == {"targeted": RightShare(5, 3 / 5)}


def test_a_missing_judgement_withholds_what_it_would_enter_and_no_more():
    missing = summary_of(last=None)
    reseed, npc = missing.arms["reseed"], missing.arms["npc"]
    assert reseed.score is None
    assert reseed.interval_95 is None
    assert reseed.groups["color_attr"].value is None
    assert reseed.groups["counting"].value == 1.0
    assert npc == summary_of().arms["npc"]
    pairs = {(pair.first, pair.second): pair for pair in missing.pairs}
    assert pairs["npc", "reseed"].p is None
    assert pairs["base", "npc"].p == 0.5
    for show in (tables.text, tables.markdown):
        shown = show(tables.title(missing), tables.sections(missing))
        assert "withheld (1 failed)" in shown
        assert "server / on fire" in shown
        assert "--retry-errors" in shown
    rows = {(row["arm"], row["group"], row["measure"]): row for row in read(missing)}
    headline = rows["reseed", "", "mean of the tags' accuracies"]
    assert (headline["value"], headline["low_95"], headline["errors"]) == ("", "", "1")


def read(numbers):
    """The rows of the CSV form."""
    reader = csv.DictReader(io.StringIO(csv_rows.to_csv(numbers)))
    rows = list(reader)
    assert tuple(reader.fieldnames) == csv_rows.HEAD
    return rows


def test_csv_has_every_number_with_its_source():
    rows = read(summary_of())
    ours = {
        (row["arm"], row["group"], row["measure"]): row
        for row in rows
        if row["source"] == "npc-local"
    }
    npc = ours["npc", "", "mean of the tags' accuracies"]
    assert float(npc["value"]) == pytest.approx(2 / 3)
    assert (npc["low_95"], npc["high_95"], npc["images"], npc["errors"]) == ("0.5", "1.0", "5", "0")
    assert float(ours["base -> npc", "", "p"]["value"]) == 0.5
    assert ours["", "generate", "cost: forwards"]["value"] == "1234"
    theirs = [row for row in rows if row["source"] != "npc-local"]
    assert [float(row["value"]) for row in theirs] == [0.371, 0.526, 0.571, 0.564]
    assert all(row["source"].startswith("arXiv") for row in theirs)
    assert len(ours) + len(theirs) == len(rows)  # no two rows of one name


def test_the_paper_s_figures_are_in_a_table_of_their_own():
    shown = tables.markdown(tables.title(summary_of()), tables.sections(summary_of()))
    ours, theirs = shown.split("## Published by the paper's authors")
    for figure in ("0.371", "0.526", "0.571", "0.564"):
        assert figure not in ours
        assert figure in theirs
    assert "not measured here" in theirs


def test_markdown_and_text_show_every_tag_arm_and_cost():
    for show in (tables.text, tables.markdown):
        shown = show(tables.title(summary_of()), tables.sections(summary_of()))
        for words in ("counting", "color_attr", "npc", "66.7 %", "50.0 to 100.0", "1,234", "12.3"):
            assert words in shown
        assert "judged by somebody" in shown
        assert "5 of 6 prompts" in shown
        assert "Errors" not in shown
    table = tables.table(["a", "bb"], [["longer", "1"]])
    assert table == ["| a      | bb |", "|--------|---:|", "| longer |  1 |"]


def test_json_survives_and_the_order_of_results_changes_nothing():
    once = summary_of()
    assert json.loads(json.dumps(once.data()))["arms"]["npc"]["score"] == once.arms["npc"].score
    backwards = summarise(TwoTags(), case()[::-1], ARMS, judge="somebody", costs=COSTS)
    assert json.dumps(backwards.data()) == json.dumps(once.data())


def graded(number, group, arm, grade, score):
    item = BenchItem(number, f"p{number}", group, {})
    tried = TriedShot(Shot(f"p{number}", arm, number), False, score, 10)
    return ArmResult(Task(item, 0), arm, (tried,), tried, Judgement(None, grade, {}, ""))


def test_grades_are_weighted_and_compared_by_their_means(tmp_path):
    suite = ImagineBench(write(tmp_path / "imagine_bench.jsonl", RECORDS["imagine"]()))
    types = list(WEIGHTS)
    grades = [2.0, 4.0, 6.0, 8.0] * 2  # two prompts of each type
    base = [graded(n, types[n % 4], "base", g, g / 10) for n, g in enumerate(grades)]
    npc = [graded(n, types[n % 4], "npc", g + 1, g / 10) for n, g in enumerate(grades)]
    numbers = summarise(suite, base + npc, ["base", "npc"], judge="somebody", costs={})
    first = numbers.arms["base"]
    assert first.score == pytest.approx((3 * 2 + 2 * 4 + 2 * 6 + 2 * 8) / 9)
    assert first.others[PUBLISHED_OVERALL] == pytest.approx((3 * 2 + 2 * 4 + 2 * 6) / 7)
    [pair] = numbers.pairs
    assert pair.difference == pytest.approx(1.0)
    assert pair.interval_95 == pytest.approx((1.0, 1.0))
    assert pair.p is None  # McNemar's test is of right and wrong
    assert numbers.agreement.kappa is None
    assert 0.9 < numbers.agreement.rank_correlation <= 1
    shown = tables.markdown(tables.title(numbers), tables.sections(numbers))
    assert "McNemar" not in shown
    assert "+1.00" in shown
    assert "Spearman" in shown


def test_the_title_says_how_many_prompts_are_different():
    numbers = summary_of()
    assert "5 of 6 prompts, benchmark seed 0" in tables.title(numbers)
    repeated = replace(numbers, different_prompts=4)
    assert "5 of 6 prompts (4 different), benchmark seed 0" in tables.title(repeated)

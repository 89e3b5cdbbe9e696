"""What the journal says about ranking, kinds and caption: by hand, and beside the arms' count."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from npc_local.analysis.agreement import PairCounts, report
from npc_local.analysis.searches import open_run, searches
from npc_local.bench.analysis.summarise import summarise
from npc_local.bench.arms import ARMS
from npc_local.bench.runner import Judge, choose, run, tasks
from npc_local.bench.suites.shapes import ShapesBench
from npc_local.cli import main as cli
from npc_local.core.errors import ConfigError
from npc_local.core.records import Candidate, Negative
from npc_local.plans import shuffled
from npc_local.run.journal.readers import MADE_FOR, renders
from npc_local.run.journal.sticky_failures import SettledJournal
from npc_local.run.stages import Stages
from tests.bench.world import Agents, Images, components_of
from tests.world import FakeScorer, colour, flat

SCORES = {"sky": 0.9, "sand": 0.6, "sea": 0.3}


class ThreeNegatives(Agents):
    """Proposes sky, sand and sea, the first one as targeted."""

    def _propose(self, request, pixel):
        return {
            "negatives": [
                {"text": "sky", "kind": "targeted"},
                {"text": "sand", "kind": "untargeted"},
                {"text": "sea", "kind": "untargeted"},
            ]
        }


def by_hand():
    """Return a scorer with the ranking by hand."""
    return FakeScorer(**SCORES)


class Holds(Images):
    """Makes images of which one, two or all claims hold, as `holds` says by negative."""

    def __init__(self, holds):
        super().__init__()
        self.holds = holds

    def paint(self, shot):
        claims = self.holds.get(shot.negative, 1)
        red, green = 0 if claims == 3 else 150, 0 if claims == 2 else 150
        return flat(red, green, colour(shot)[2])


def play(directory, arms, generator=None, agents=None, *, scorer=None, prompts=1, suite=None):
    """Run arms; return their summary."""
    suite = suite or ShapesBench(1)

    async def measured():
        with SettledJournal.open(directory, {"suite": "made up"}) as journal:
            components = components_of(generator or Images(), agents or Agents(), scorer=scorer)
            todo = tasks(choose(suite.items(), prompts), (0,))
            results = await run(
                todo, arms, Stages(components, journal), Judge(suite, None),
                budget=3, in_flight=2, done=lambda result: None,
            )  # fmt: skip
            return summarise(suite, results, arms, judge="", costs={})

    return asyncio.run(measured())


def measured(directory):
    with open_run(directory) as journal:
        return report(journal)


def test_npc_alone_tries_in_order_up_to_the_first_correct(tmp_path):
    generator = Holds({"sky": 2, "sand": 3, "sea": 1})
    play(tmp_path, ["npc"], generator, ThreeNegatives(), scorer=by_hand())
    measures = measured(tmp_path)
    # sky (two claims hold) and sand (all): the lower-ranked has the better score. sea: untried.
    assert measures.ranking["all tried"] == PairCounts(1, 0, 1, 0, 0.0, interval_95=None)
    assert measures.effort["ranked"].images_per_failing_prompt == 2
    assert measures.effort["ranked"].corrected == 1


def test_every_pair_is_counted_once_whatever_the_order(tmp_path):
    generator = Holds({"sky": 2, "sand": 1, "sea": 1})
    play(tmp_path, ["npc", "random-rank"], generator, ThreeNegatives(), scorer=by_hand())
    measures = measured(tmp_path)
    # None is correct: both arms try all. sky beats sand and sea, which are as good as each other.
    for name in ("tried in random order", "all tried"):
        pairs = measures.ranking[name]
        assert (pairs.pairs, pairs.better, pairs.worse, pairs.ties) == (3, 2, 0, 1)
        assert pairs.agreement == 1.0
        assert pairs.interval_95 is None  # one prompt
    assert measures.effort["ranked"].images_per_failing_prompt == 3
    assert measures.effort["random order"].images_per_failing_prompt == 3
    assert measures.kinds["targeted"].images == 1
    assert measures.kinds["untargeted"].images == 2


def test_the_same_pairs_ranked_otherwise(tmp_path):
    """sky is right most, then sand; ours ranks sky, sand, sea, the other one sea, sand, sky."""
    generator = Holds({"sky": 2, "sand": 1, "sea": 1})
    play(tmp_path, ["npc", "random-rank"], generator, ThreeNegatives(), scorer=by_hand())
    asked = []

    def backwards(pairs):
        asked.extend(pairs)
        return [[-SCORES[text] for text in texts] for _, texts in pairs]

    with open_run(tmp_path) as journal:
        ranking = report(journal, {"backwards": backwards}).ranking
    prefix = "tried in random order, if ranked otherwise: "
    counted = {name: (counts.better, counts.worse, counts.ties) for name, counts in ranking.items()}
    assert counted["tried in random order"] == (2, 0, 1)
    assert counted[f"{prefix}backwards"] == (0, 2, 1)
    # sand and sea are of one kind: that order says nothing of them.
    assert counted[f"{prefix}targeted before untargeted"] == (2, 0, 0)
    assert len(asked) == 1
    assert sorted(asked[0][1]) == sorted(SCORES)


def test_the_random_order_stops_at_its_own_first_correct(tmp_path):
    suite = ShapesBench(1)
    item = suite.items()[0]
    candidates = [Candidate(Negative(text, "untargeted"), 0.0) for text in SCORES]
    order = [one.negative.text for one in shuffled(candidates, item.prompt, 1)]
    generator = Holds({order[1]: 3})
    play(tmp_path, ["npc", "random-rank"], generator, ThreeNegatives(), scorer=by_hand())
    measures = measured(tmp_path)
    pairs = measures.ranking["tried in random order"]
    better = SCORES[order[1]] > SCORES[order[0]]
    assert (pairs.pairs, pairs.better, pairs.worse) == (1, int(better), int(not better))
    assert measures.effort["random order"].images_per_failing_prompt == 2
    place = sorted(SCORES, key=lambda text: -SCORES[text]).index(order[1])
    assert measures.effort["ranked"].images_per_failing_prompt == place + 1


def test_an_order_that_was_not_run_is_not_pieced_together_from_another_arm_s_tries(tmp_path):
    """npc's own tries complete the random order where all of them were wrong, and seldom else."""
    play(tmp_path, ["base", "npc"], prompts=None, suite=ShapesBench(4))
    with open_run(tmp_path) as journal:
        walks = [one.at_random() for one in searches(journal)]
    assert None in walks
    assert any(walks)
    measures = measured(tmp_path)
    assert measures.missing_arms == ("random-rank",)
    assert measures.effort["random order"] is None
    assert measures.kinds is None
    for name, pairs in measures.ranking.items():
        assert (pairs is None) == (name != "all tried")
    assert measures.effort["ranked"].incomplete == 0
    assert measures.caption is None  # prompt-only was not run


@pytest.mark.parametrize("arms", [["random-rank", "prompt-only"], ["npc+reseed", "prompt-only"]])
def test_the_ranked_order_is_not_pieced_together_either(tmp_path, arms):
    play(tmp_path, arms, prompts=None, suite=ShapesBench(4))
    measures = measured(tmp_path)
    assert "npc" in measures.missing_arms
    assert measures.effort["ranked"] is None
    assert measures.caption is None
    assert measures.proposals["prompt-only"].incomplete == 0


@pytest.mark.parametrize("form", ["text", "markdown", "csv", "json"])
def test_the_command_names_the_arms_that_are_missing(tmp_path, form):
    play(tmp_path, ["base", "npc"], prompts=None, suite=ShapesBench(4))
    asked = ["bench", "agreement", "--out", str(tmp_path), "--format", form]
    result = CliRunner().invoke(cli.main, asked)
    assert result.exit_code == 0, result.output
    if form == "json":
        assert json.loads(result.stdout)["effort"]["random order"] is None
    elif form == "csv":
        assert "npc-local,ranking.tried in random order,\n" in result.stdout
    else:
        assert "--arms npc,random-rank" in result.stdout
        assert "candidates tried in random order" not in result.stdout
        assert "Targeted and untargeted" not in result.stdout


def test_it_counts_as_the_arms_do(tmp_path):
    arms = list(ARMS)
    summary = play(tmp_path, arms, prompts=None, suite=ShapesBench(4))
    measures = measured(tmp_path)
    assert measures.failing == summary.failing > 10
    named = {
        "npc": measures.effort["ranked"],
        "random-rank": measures.effort["random order"],
        "prompt-only": measures.proposals["prompt-only"],
        "targeted-only": measures.proposals["targeted-only"],
        "untargeted-only": measures.proposals["untargeted-only"],
    }
    for arm, effort in named.items():
        ours = summary.arms[arm]
        assert effort.incomplete == 0
        assert effort.images_per_failing_prompt == pytest.approx(ours.images_per_failing_prompt)
        assert effort.corrected == pytest.approx(ours.corrected)
    caption = measures.caption
    assert caption.searches == summary.failing
    assert caption.corrected == pytest.approx(
        (summary.arms["prompt-only"].corrected, summary.arms["npc"].corrected)
    )
    low, high = caption.images_difference_95
    assert low <= caption.images_difference <= high


def test_correct_base_images_and_failed_verdicts_are_no_searches(tmp_path):
    play(tmp_path, ["npc"], Holds({None: 3}), ThreeNegatives(), scorer=by_hand())
    with open_run(tmp_path) as journal:
        assert list(searches(journal)) == []
    assert measured(tmp_path).ranking["all tried"].agreement is None


def test_the_command_prints_every_form(tmp_path):
    play(tmp_path / "run", list(ARMS), prompts=7)
    forms = {}
    for form in ("text", "markdown", "csv", "json"):
        asked = ["bench", "agreement", "--out", str(tmp_path / "run"), "--format", form]
        result = CliRunner().invoke(cli.main, asked)
        assert result.exit_code == 0, result.output
        forms[form] = result.stdout
    assert json.loads(forms["json"])["failing"] > 0
    assert forms["csv"].startswith("source,measure,value\nnpc-local,failing,")
    assert (
        "arXiv 2512.07702,salience picks the better negative of a pair (of pairs),0.729"
        in forms["csv"]
    )
    for form in ("text", "markdown"):
        assert "Ranking agreement" in forms[form]
        assert forms[form].index("0.729") > forms[form].index("not measured here")


def test_a_directory_without_a_run_is_refused_and_left_alone(tmp_path):
    with pytest.raises(ConfigError, match="no run of a benchmark"):
        open_run(tmp_path)
    result = CliRunner().invoke(cli.main, ["bench", "agreement", "--out", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_prompts_is_no_benchmark_and_is_refused(tmp_path):
    with SettledJournal.open(tmp_path, {"seed": 0}):
        pass
    with pytest.raises(ConfigError, match="a run of prompts, not of a benchmark"):
        open_run(tmp_path)


def test_a_journal_from_before_arms_were_kept_says_the_same(tmp_path):
    arms = ["base", "reseed", "npc", "random-rank", "npc+reseed"]
    play(tmp_path, arms, prompts=None, suite=ShapesBench(2))
    with open_run(tmp_path) as journal:
        now, seeds = report(journal), {r.shot.seed for r in renders(journal) if r.at_new_seed}
        rows = list(journal.rows())
        assert all(MADE_FOR in row.inputs for row in rows)
        for row in rows:
            inputs = {key: value for key, value in row.inputs.items() if key != MADE_FOR}
            kept = journal.find(row.kind, row.key)
            journal.add(replace(row, inputs=inputs), kept.image)
        assert {r.made_for for r in renders(journal)} == {None}
        assert {r.shot.seed for r in renders(journal) if r.at_new_seed} == seeds
        assert report(journal) == now
    assert seeds

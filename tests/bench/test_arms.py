"""Each arm: what it makes, when it stops, what its result is, and what all of them share."""

from __future__ import annotations

import asyncio

import pytest
from PIL import Image

from npc_local.bench.arms import ARMS, SEED_STRIDE, Trial, shuffled
from npc_local.core.errors import BackendError
from npc_local.core.records import Candidate, Negative, Render
from npc_local.loop import correct
from npc_local.run.journal.journal import Journal
from npc_local.run.stages import Stages
from tests.bench.world import NEGATIVES, Agents, Images, Scores, cast_of, colour

PROMPT, SEED, BUDGET = "two circles", 7, 5


class Painter(Images):
    """Paints green what is right; and darker, the more claims hold."""

    def __init__(self, right=(), better=()):
        super().__init__()
        self.right, self.better = set(right), set(better)

    def generate(self, shot, on_step=None):
        render = super().generate(shot, on_step)
        name = (shot.negative, shot.seed)
        first, second, blue = colour(name)  # no two images are alike
        red = 0 if name in self.right else 150 + first % 100
        green = 0 if name in self.better else 130 + second % 100
        return Render(Image.new("RGB", (8, 8), (red, green, blue)), render.forwards, 0.0)


def play(tmp_path, generator, arms=tuple(ARMS), agents=None, budget=BUDGET):
    """Run arms on one prompt; return outcomes with their result's colour, and the agents."""
    agents = agents or Agents()

    async def run():
        with Journal.open(tmp_path / "run", {}) as journal:
            trial = Trial(PROMPT, SEED, Stages(cast_of(generator, agents), journal), budget)
            found = {}
            for arm in arms:
                outcome, image = await trial.run(ARMS[arm])
                found[arm] = outcome, image.getpixel((0, 0))
            return found

    return asyncio.run(run()), agents


def ranked(negatives):
    """The order of the world's scorer."""
    scores = dict(zip(negatives, Scores().score(PROMPT, negatives), strict=True))
    return sorted(negatives, key=lambda one: -scores[one])


ALL = ranked([*NEGATIVES["targeted"], *NEGATIVES["untargeted"]])


def test_a_correct_base_image_costs_no_arm_anything(tmp_path):
    generator = Painter(right={(None, SEED)})
    found, agents = play(tmp_path, generator)
    assert all(outcome.result.correct and not outcome.more for outcome, _ in found.values())
    assert len(generator.shots) == 1
    assert agents.asked == {"checklist": 1, "verify": 1}


def test_what_each_arm_makes_where_nothing_is_right(tmp_path):
    found, _ = play(tmp_path, Painter())
    made = {
        arm: [(one.shot.negative, one.shot.seed) for one in outcome.more]
        for arm, (outcome, _) in found.items()
    }
    new = [SEED + number * SEED_STRIDE for number in range(1, BUDGET + 1)]
    blind = ranked([f"{text} prints" for kind in NEGATIVES.values() for text in kind])
    assert made == {
        "base": [],
        "npc": [(text, SEED) for text in ALL],
        "prompt-only": [(text, SEED) for text in blind],
        "targeted-only": [(text, SEED) for text in made_first(made["targeted-only"])],
        "untargeted-only": [(text, SEED) for text in made_first(made["untargeted-only"])],
        "random-rank": [(text, SEED) for text in made_first(made["random-rank"])],
        "reseed": [(None, seed) for seed in new],
        "npc+reseed": list(zip(ALL, new, strict=True)),
    }
    assert sorted(made_first(made["random-rank"])) == sorted(ALL)
    assert made_first(made["random-rank"]) != ALL
    assert set(NEGATIVES["targeted"]) <= set(made_first(made["targeted-only"]))
    assert set(NEGATIVES["untargeted"]) <= set(made_first(made["untargeted-only"]))
    kinds = {arm: {one.kind for one in outcome.more} for arm, (outcome, _) in found.items()}
    assert kinds["targeted-only"] == {"targeted"}
    assert kinds["untargeted-only"] == {"untargeted"}
    assert kinds["reseed"] == {None}


def made_first(shots):
    return [negative for negative, _ in shots]


def test_arms_share_what_they_have_in_common(tmp_path):
    generator = Painter()
    found, agents = play(tmp_path, generator)
    shots = {one.shot for outcome, _ in found.values() for one in outcome.tries}
    assert len(generator.shots) == len(shots)  # each image once
    tries = sum(len(outcome.tries) for outcome, _ in found.values())
    assert len(shots) < tries - 7 - 4  # at least seven times the base image, random-rank's
    assert agents.asked["checklist"] == agents.asked["caption"] == 1
    assert agents.asked["verify"] == len(shots)


def test_npc_is_the_loop(tmp_path):
    generator = Painter(right={(ALL[2], SEED)})
    found, _ = play(tmp_path, generator, ["npc"])
    outcome, _ = found["npc"]
    cast = cast_of(Painter(right={(ALL[2], SEED)}), Agents())
    loop = asyncio.run(correct(PROMPT, cast, seed=SEED, candidates=BUDGET))
    assert loop.status == "corrected"
    assert [one.shot.negative for one in outcome.more] == [
        attempt.candidate.negative.text for attempt in loop.attempts
    ]
    assert [one.score for one in outcome.tries] == [
        attempt.verdict.score for attempt in (loop.original, *loop.attempts)
    ]


def test_an_arm_stops_at_its_first_correct_image(tmp_path):
    right = {(ALL[1], SEED), (None, SEED + 2 * SEED_STRIDE), (ALL[3], SEED + 4 * SEED_STRIDE)}
    found, _ = play(tmp_path, Painter(right=right))
    assert {arm: len(found[arm][0].more) for arm in ("npc", "reseed", "npc+reseed")} == {
        "npc": 2,
        "reseed": 2,
        "npc+reseed": 4,
    }
    for arm in ("npc", "reseed", "npc+reseed"):
        outcome, pixel = found[arm]
        assert outcome.result is outcome.tries[-1]
        assert outcome.result.correct
        assert pixel[0] == 0
    assert [one.forwards for one in found["npc"][0].tries] == [10, 12, 12]


def test_without_a_correct_image_the_best_scored_one_is_the_result(tmp_path):
    found, _ = play(tmp_path, Painter(better={(ALL[1], SEED), (ALL[2], SEED)}), ["npc", "reseed"])
    outcome, pixel = found["npc"]
    assert outcome.answer == 2  # the earliest of two that are as good
    assert pixel[1] == 0
    assert found["reseed"][0].answer == 0  # nothing better than the base image


def test_the_budget_bounds_every_arm(tmp_path):
    found, _ = play(tmp_path, Painter(), budget=2)
    assert {len(outcome.more) for arm, (outcome, _) in found.items() if arm != "base"} == {2}


def test_a_failed_step_is_the_error_of_the_arms_that_need_it(tmp_path):
    agents = Agents(fails=lambda request: request.role == "caption")
    for arm, fails in [("base", False), ("npc", True), ("prompt-only", False), ("reseed", False)]:
        if fails:
            with pytest.raises(BackendError, match="server on fire"):
                play(tmp_path, Painter(), [arm], agents)
        else:
            assert play(tmp_path, Painter(), [arm], agents)[0]


def test_the_random_order_depends_on_prompt_seed_and_words_alone():
    candidates = [
        Candidate(Negative(text, "targeted"), score) for score, text in enumerate("abcdef")
    ]
    once = shuffled(candidates, PROMPT, SEED)
    assert shuffled(candidates[::-1], PROMPT, SEED) == once
    assert sorted(once, key=lambda one: one.score) == candidates
    others = {shuffled(candidates, PROMPT, seed) for seed in range(20)}
    assert len(others) > 15

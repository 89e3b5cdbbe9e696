"""Each arm: what it makes, when it stops, what its result is, and what all of them share."""

from __future__ import annotations

import asyncio

import pytest

from npc_local.bench.arms import ARMS
from npc_local.loop import correct
from npc_local.plans import SEED_STRIDE
from npc_local.run.journal.journal import Journal
from npc_local.run.stages import Stages
from tests.bench.world import NEGATIVES, Agents, Images, components_of
from tests.world import HashScorer, colour, flat

PROMPT, SEED, BUDGET = "two circles", 7, 5


class Painter(Images):
    """Paints green what is right; and darker, the more claims hold."""

    def __init__(self, right=(), better=()):
        super().__init__()
        self.right, self.better = set(right), set(better)

    def paint(self, shot):
        name = (shot.negative, shot.seed)
        first, second, blue = colour(name)  # no two images are alike
        red = 0 if name in self.right else 150 + first % 100
        green = 0 if name in self.better else 130 + second % 100
        return flat(red, green, blue)


def play(tmp_path, generator, arms=tuple(ARMS), agents=None, budget=BUDGET):
    """Run arms on one prompt; return their corrections, and the agents."""
    agents = agents or Agents()

    async def run():
        with Journal.open(tmp_path / "run", {}) as journal:
            stages = Stages(components_of(generator, agents), journal)
            return {
                arm: await correct(
                    PROMPT, stages, seed=SEED, candidates=budget, plan=ARMS[arm].plan
                )
                for arm in arms
            }

    return asyncio.run(run()), agents


def made(correction):
    """Negative prompt and seed of each image after the base image."""
    return [(attempt.shot.negative, attempt.shot.seed) for attempt in correction.attempts]


def pixel(correction):
    return correction.answer.render.image.getpixel((0, 0))


def ranked(negatives):
    """The order of the world's scorer."""
    scores = dict(zip(negatives, HashScorer().score(PROMPT, negatives), strict=True))
    return sorted(negatives, key=lambda one: -scores[one])


ALL = ranked([*NEGATIVES["targeted"], *NEGATIVES["untargeted"]])


def test_a_correct_base_image_costs_no_arm_anything(tmp_path):
    generator = Painter(right={(None, SEED)})
    corrections, agents = play(tmp_path, generator)
    assert {(c.status, c.attempts) for c in corrections.values()} == {("already-correct", ())}
    assert len(generator.shots) == 1
    assert agents.asked == {"checklist": 1, "verify": 1}


def test_what_each_arm_makes_where_nothing_is_right(tmp_path):
    corrections, _ = play(tmp_path, Painter())
    shots = {arm: made(correction) for arm, correction in corrections.items()}
    negatives = {arm: [negative for negative, _ in made] for arm, made in shots.items()}
    new = [SEED + number * SEED_STRIDE for number in range(1, BUDGET + 1)]
    blind = ranked([f"{text} prints" for kind in NEGATIVES.values() for text in kind])
    assert shots == {
        "base": [],
        "npc": [(text, SEED) for text in ALL],
        "prompt-only": [(text, SEED) for text in blind],
        "targeted-only": [(text, SEED) for text in negatives["targeted-only"]],
        "untargeted-only": [(text, SEED) for text in negatives["untargeted-only"]],
        "random-rank": [(text, SEED) for text in negatives["random-rank"]],
        "reseed": [(None, seed) for seed in new],
        "npc+reseed": list(zip(ALL, new, strict=True)),
    }
    assert sorted(negatives["random-rank"]) == sorted(ALL)
    assert negatives["random-rank"] != ALL
    assert set(NEGATIVES["targeted"]) <= set(negatives["targeted-only"])
    assert set(NEGATIVES["untargeted"]) <= set(negatives["untargeted-only"])
    kinds = {
        arm: {attempt.candidate and attempt.candidate.negative.kind for attempt in c.attempts}
        for arm, c in corrections.items()
    }
    assert kinds["targeted-only"] == {"targeted"}
    assert kinds["untargeted-only"] == {"untargeted"}
    assert kinds["reseed"] == {None}


def test_every_arm_begins_with_the_same_image_and_checklist(tmp_path):
    corrections, _ = play(tmp_path, Painter())
    npc = corrections["npc"]
    for correction in corrections.values():
        assert correction.original.shot == npc.original.shot
        assert correction.original.render.image.tobytes() == npc.original.render.image.tobytes()
        assert correction.checklist == npc.checklist


def test_arms_share_what_they_have_in_common(tmp_path):
    generator = Painter()
    corrections, agents = play(tmp_path, generator)
    shots = [attempt.shot for c in corrections.values() for attempt in (c.original, *c.attempts)]
    assert len(generator.shots) == len(set(shots))  # each image once
    assert len(set(shots)) < len(shots) - 7 - 4  # at least seven base images, random-rank's
    assert agents.asked["checklist"] == agents.asked["caption"] == 1
    assert agents.asked["verify"] == len(set(shots))


def test_npc_is_what_users_run(tmp_path):
    right = {(ALL[2], SEED)}
    corrections, _ = play(tmp_path, Painter(right), ["npc"])
    stages = Stages(components_of(Painter(right), Agents()))
    loop = asyncio.run(correct(PROMPT, stages, seed=SEED, candidates=BUDGET))
    assert loop.status == "corrected"
    assert made(corrections["npc"]) == made(loop) == [(text, SEED) for text in ALL[:3]]


def test_an_arm_stops_at_its_first_correct_image(tmp_path):
    right = {(ALL[1], SEED), (None, SEED + 2 * SEED_STRIDE), (ALL[3], SEED + 4 * SEED_STRIDE)}
    corrections, _ = play(tmp_path, Painter(right=right))
    for arm, images in {"npc": 2, "reseed": 2, "npc+reseed": 4}.items():
        correction = corrections[arm]
        assert (correction.status, len(correction.attempts)) == ("corrected", images)
        assert correction.answer is correction.attempts[-1]
        assert pixel(correction)[0] == 0
    npc = corrections["npc"]
    assert [a.render.forwards for a in (npc.original, *npc.attempts)] == [10, 12, 12]


def test_without_a_correct_image_the_best_scored_one_is_the_result(tmp_path):
    better = {(ALL[1], SEED), (ALL[2], SEED)}
    corrections, _ = play(tmp_path, Painter(better=better), ["npc", "reseed"])
    npc, reseed = corrections["npc"], corrections["reseed"]
    assert npc.answer is npc.attempts[1]  # the earliest of two that are as good
    assert pixel(npc)[1] == 0
    assert reseed.answer is reseed.original  # nothing better than the base image


def test_the_budget_bounds_every_arm(tmp_path):
    corrections, _ = play(tmp_path, Painter(), budget=2)
    assert {len(c.attempts) for arm, c in corrections.items() if arm != "base"} == {2}


@pytest.mark.parametrize(
    ("arm", "needs_it"),
    [("base", False), ("npc", True), ("prompt-only", False), ("reseed", False)],
)
def test_a_failed_stage_is_the_error_of_the_arms_that_need_it(tmp_path, arm, needs_it):
    agents = Agents(fails=lambda request: request.role == "caption")
    correction = play(tmp_path, Painter(), [arm], agents)[0][arm]
    assert (correction.status == "error") == needs_it
    if needs_it:
        assert "server on fire" in correction.error

"""What stages write into the journal comes back as the records that they returned."""

from __future__ import annotations

import asyncio

import pytest

from npc_local.core.hashing import pixel_hash
from npc_local.core.records import Negative, Shot
from npc_local.loop import correct
from npc_local.run.journal import readers
from npc_local.run.journal.journal import Journal, Row
from npc_local.run.journal.readers import Asked, MadeFor
from npc_local.run.stages import Stages
from tests.run.journal.world import IDENTITY, PROMPTS, Log, cast_of

PROMPT = PROMPTS[0]


@pytest.fixture
def journal(tmp_path):
    with Journal.open(tmp_path / "run", IDENTITY) as journal:
        yield journal


@pytest.fixture
def stages(tmp_path, journal):
    return Stages(cast_of(Log(tmp_path / "calls")), journal)


def test_a_search_is_read_back_stage_by_stage(journal, stages):
    found = asyncio.run(correct(PROMPT, stages, seed=7))
    judged = [found.original, *found.attempts]
    assert len(judged) > 1
    renders = list(readers.renders(journal))
    assert [render.shot for render in renders] == [attempt.shot for attempt in judged]
    images = [readers.image(journal, render) for render in renders]
    assert [pixel_hash(image) for image in images] == [pixel_hash(a.render.image) for a in judged]
    assert readers.verdicts(journal) == {
        (PROMPT, pixel_hash(attempt.render.image)): attempt.verdict for attempt in judged
    }
    assert readers.captions(journal) == {pixel_hash(found.original.render.image): found.caption}
    asked = Asked(PROMPT, "caption", found.caption.text, found.original.verdict.reason)
    [(about, proposal)] = readers.proposals(journal).items()
    assert about == asked
    texts = tuple(negative.text for negative in proposal.negatives)
    assert readers.rankings(journal) == {(PROMPT, texts): found.candidates}


def test_a_proposal_from_the_prompt_alone_was_told_nothing_of_the_image(journal, stages):
    asyncio.run(stages.propose(PROMPT, None, "wrong", 3, "prompt-only"))
    assert list(readers.proposals(journal)) == [Asked(PROMPT, "prompt-only", None, None)]


def test_rows_say_for_which_arm_they_were_made_and_arms_share_them(journal, stages):
    shot = Shot(PROMPT, None, 7)

    async def both():
        await stages.made_for("reseed", 3).generate(shot)
        await stages.made_for("npc", 7).generate(shot)
        await stages.made_for("npc", 7).rank(PROMPT, [Negative("sand", "untargeted")])

    asyncio.run(both())
    [render] = readers.renders(journal)
    assert render.made_for == MadeFor("reseed", 3)
    assert render.at_new_seed
    [row] = journal.rows("rank")
    assert row.inputs["made_for"] == {"arm": "npc", "seed": 7}


def test_whom_a_stage_is_done_for_is_no_part_of_its_key(tmp_path, journal, stages):
    asyncio.run(stages.made_for("npc", 7).checklist(PROMPT))
    [of_arm] = journal.rows("checklist")
    with Journal.open(tmp_path / "other", IDENTITY) as other:
        plain = Stages(cast_of(Log(tmp_path / "calls")), other)
        asyncio.run(plain.checklist(PROMPT))
        [of_nobody] = other.rows("checklist")
    assert of_arm.key == of_nobody.key
    assert readers.MADE_FOR not in of_nobody.inputs


@pytest.mark.parametrize(
    ("made_for", "seed", "new"),
    [
        (MadeFor("npc", 7), 7, False),
        (MadeFor("npc+reseed", 7), 8, True),
        (MadeFor("npc", 2_000_000), 2_000_000, False),
        (None, 99, False),
        (None, 1_000_003, True),
    ],
)
def test_a_new_seed_is_another_than_that_of_its_search(made_for, seed, new):
    render = readers.KeptRender("key", Shot(PROMPT, None, seed), made_for)
    assert render.at_new_seed == new


def test_a_row_that_is_no_record_of_this_version_is_left_out(journal, stages):
    asyncio.run(correct(PROMPT, stages, seed=7))
    before = readers.captions(journal)
    inputs = {"image": {"pixels": "0"}}
    journal.add(Row("caption", "another key", inputs, {"words": "of an older version"}))
    assert readers.captions(journal) == before

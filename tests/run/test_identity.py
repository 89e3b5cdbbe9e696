"""What makes two runs the same, and in which words they differ."""

from __future__ import annotations

import asyncio
import json

from npc_local.core.config.load import load_config
from npc_local.core.hashing import code_digest
from npc_local.run.factory import open_components
from npc_local.run.identity import CODE, run_identity
from npc_local.run.journal.differences import differences
from tests.world import FakeGenerator, FakeScorer

CONFIG = """\
default_profile = "replay"

[profiles.replay]
generator = "none"
verifier = "writer"
captioner = "writer"
proposer = "writer"
encoder = "none"

[generators.none]
path = "nowhere"
steps = 4
guidance_scale = 3.5
true_cfg_scale = 2.0
height = 64
width = 64

[backends.writer]
kind = "scripted"
replies = "writer.json"

[encoders.none]
path = "nowhere"
"""


def test_every_kind_of_step_names_code_that_is_there():
    digests = [code_digest(*parts) for parts in CODE.values()]
    assert len(set(digests)) == len(digests) == 6


def test_what_a_run_is(tmp_path):
    (tmp_path / "models.toml").write_text(CONFIG)
    (tmp_path / "writer.json").write_text('{"caption": []}')

    def identity(*overrides, name="fake"):
        async def scenario():
            profile = load_config(tmp_path / "models.toml", overrides).profile()
            generator = FakeGenerator()
            generator.fingerprint = lambda: name
            async with open_components(
                profile, generator=generator, scorer=FakeScorer()
            ) as components:
                return run_identity(profile, components)

        return json.loads(json.dumps(asyncio.run(scenario())))

    now = identity()
    assert differences(identity("generators.none.path=elsewhere"), now) == []
    assert differences(identity("encoders.none.device=cpu"), now) == []
    assert differences(identity("generators.none.steps=5"), now) == [
        "generator.steps: 5 there, 4 now"
    ]
    assert differences(identity("profiles.replay.votes=3"), now) == ["rules.votes: 3 there, 1 now"]
    assert differences(identity(name="swapped"), now) == [
        "generator.fingerprint: swapped there, fake now"
    ]
    (tmp_path / "writer.json").write_text('{"caption": [{}]}')
    changed = differences(now, identity())
    assert [line.split(":")[0] for line in changed] == [
        f"{role}.fingerprint" for role in ("verifier", "captioner", "proposer")
    ]

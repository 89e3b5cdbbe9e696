"""The arms of a benchmark: the plans that are compared, by name.

Every arm is a plan of the one loop that users run too. All start from the same base image, and each
may make at most as many more as the profile has candidates; its result is the loop's answer. Stages
that arms have in common are done once, which is the journal's doing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from npc_local import plans
from npc_local.loop import Plan, npc


@dataclass(frozen=True, slots=True)
class Arm:
    """One plan to compare.

    Attributes:
        about: in words.
        plan: what it does about a wrong base image.
        proposes: it asks for negative prompts.
    """

    about: str
    plan: Plan
    proposes: bool = True


ARMS = {
    "base": Arm("the first image, as it comes", plans.base, proposes=False),
    "npc": Arm("same seed, ranked negative prompts in the early steps (the paper)", npc),
    "prompt-only": Arm(
        "npc, proposed from the prompt alone, without a caption",
        partial(npc, proposals="prompt-only"),
    ),
    "targeted-only": Arm(
        "npc, proposing only negatives that name the error",
        partial(npc, proposals="targeted-only"),
    ),
    "untargeted-only": Arm(
        "npc, proposing only negatives that name incidental content",
        partial(npc, proposals="untargeted-only"),
    ),
    "random-rank": Arm("npc's negative prompts in a random order", plans.random_rank),
    "reseed": Arm(
        "new seeds, no negative prompt: what anyone can do today", plans.reseed, proposes=False
    ),
    "npc+reseed": Arm("npc's negative prompts, each under a new seed", plans.npc_reseed),
}

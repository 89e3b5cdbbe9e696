"""What the paper reports (arXiv 2512.07702): its authors' figures, for a column of their own.

Nothing here was measured by npc-local, and nothing here enters a number of ours: other images,
other agents, another judge (GPT-4.1). Where the place in the paper is not on record, `source` says
no more than the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

_PAPER = "arXiv 2512.07702"


@dataclass(frozen=True, slots=True)
class Figure:
    """One published number. `arm` is the arm of ours that it stands beside, if there is one."""

    arm: str | None
    what: str
    value: float
    unit: str
    source: str


_ACCURACY = "accuracy"

GENEVAL_PP = (
    Figure("base", "base generator", 0.371, _ACCURACY, f"{_PAPER}, abstract"),
    Figure("prompt-only", "negatives from the prompt alone", 0.526, _ACCURACY, _PAPER),
    Figure("npc", "NPC, GPT agents", 0.571, _ACCURACY, f"{_PAPER}, abstract"),
    Figure("npc", "NPC, Qwen agents", 0.564, _ACCURACY, f"{_PAPER}, Table S7"),
)
# The paper calls its result on Imagine-Bench the best overall; the number is not on record here.
IMAGINE: tuple[Figure, ...] = ()

RANKING = (
    Figure(None, "salience picks the better negative of a pair", 0.729, "of pairs", _PAPER),
    Figure(None, "images a failing prompt, candidates unranked", 4.1, "images", _PAPER),
    Figure("npc", "images a failing prompt, candidates ranked", 2.5, "images", _PAPER),
)
TIMES = (
    Figure(None, "generation", 2.77, "s", f"{_PAPER}, Table S1"),
    Figure(None, "proposing", 0.78, "s", f"{_PAPER}, Table S1"),
    Figure(None, "salience scoring, on the CPU", 23.48, "s", f"{_PAPER}, Table S1"),
)

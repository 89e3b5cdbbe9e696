"""What the journal of a benchmark says about the method: ranking, kinds of negatives, the caption.

Everything is found in rows that are there: a base image, its verdict, its caption, what was
proposed and how that was ranked, and the verdicts of those candidates that were tried at the base
image's seed. Nothing is made or asked, and the score is the verifier's. Source of the measures: the
paper's "Reported results" (arXiv 2512.07702).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from npc_local.bench.analysis import statistics
from npc_local.bench.suites.scoring import mean
from npc_local.core.errors import ConfigError
from npc_local.core.files import paths
from npc_local.core.hashing import pixel_hash
from npc_local.core.records import Candidate, Kind, Negative, Proposals
from npc_local.plans import SEED_STRIDE, shuffled
from npc_local.run.journal.database import IDENTITY, NAME
from npc_local.run.journal.journal import Journal

Rescore = Callable[[Sequence[tuple[str, Sequence[str]]]], Sequence[Sequence[float]]]
_ALL = {"": 1.0}  # one group: these measures are not split by tag


@dataclass(frozen=True, slots=True)
class Verified:
    """What the verifier said of one image."""

    correct: bool
    score: float


@dataclass(frozen=True, slots=True)
class Search:
    """A wrong base image and the candidates of one way of proposing.

    Attributes:
        prompt: the prompt.
        seed: the base image's.
        mode: the way of proposing.
        candidates: the highest salience first.
        verdicts: by negative prompt, of those that were tried at this seed by any arm.
    """

    prompt: str
    seed: int
    mode: Proposals
    candidates: tuple[Candidate, ...]
    verdicts: Mapping[str, Verified]

    def walk(self, order: Sequence[Candidate]) -> list[tuple[Candidate, Verified]] | None:
        """Return the tries in this order up to the first correct image; None if one is missing."""
        tried = []
        for candidate in order:
            verdict = self.verdicts.get(candidate.negative.text)
            if verdict is None:
                return None
            tried.append((candidate, verdict))
            if verdict.correct:
                break
        return tried

    def ranked(self) -> list[tuple[Candidate, Verified]] | None:
        """Return the tries in the order of salience."""
        return self.walk(self.candidates)

    def at_random(self) -> list[tuple[Candidate, Verified]] | None:
        """Return the tries in the order of the arm random-rank."""
        return self.walk(shuffled(self.candidates, self.prompt, self.seed))


def open_run(directory: Path) -> Journal:
    """Open the journal of a run that is there, whatever its settings.

    Raises:
        ConfigError: there is no run.
        StorageError: another process has it open, or it cannot be read.
    """
    try:
        identity = json.loads((directory / IDENTITY).read_bytes())
    except (OSError, ValueError):
        identity = None
    if not isinstance(identity, dict) or not paths.is_file(directory / NAME, ConfigError):
        raise ConfigError(f"{directory}: no run of a benchmark; name the --out of one")
    return Journal.open(directory, identity)


def searches(journal: Journal) -> Iterator[Search]:
    """Yield every wrong base image with each way of proposing that was ranked.

    Raises:
        StorageError: the journal cannot be read.
    """
    said = _verdicts(journal)
    captions = {row.inputs["image"]["pixels"]: row.value["text"] for row in journal.rows("caption")}
    proposed: dict[Proposals, dict[tuple[str, ...], list[Any]]] = {}
    for row in journal.rows("propose"):
        asked = row.inputs
        about = _about(asked["prompt"], asked.get("caption"), asked.get("reason"))
        proposed.setdefault(asked["mode"], {})[about] = row.value["negatives"]
    ranked = {
        (row.inputs["prompt"], _texts(row.inputs["negatives"])): [
            Candidate(Negative(**one["negative"]), one["score"]) for one in row.value
        ]
        for row in journal.rows("rank")
    }
    tried: dict[tuple[str, int], dict[str, Verified]] = {}
    bases = []
    for row in journal.rows("generate"):
        shot = row.inputs["shot"]
        if shot["seed"] >= SEED_STRIDE:
            continue  # under a new seed: not comparable with the base image
        kept = journal.find("generate", row.key)
        if kept is None or kept.image is None:
            continue  # damaged: the benchmark's command makes it anew
        pixels = pixel_hash(kept.image)
        verdict = said.get((shot["prompt"], pixels))
        if verdict is None:
            continue  # its verifier failed
        if shot["negative"] is None:
            bases.append((shot["prompt"], shot["seed"], pixels, verdict))
        else:
            at_seed = tried.setdefault((shot["prompt"], shot["seed"]), {})
            at_seed[shot["negative"]] = verdict[0]
    for prompt, seed, pixels, (base, reason) in bases:
        if base.correct:
            continue
        for mode, answers in proposed.items():
            about = _about(prompt, captions.get(pixels), reason)
            if mode == "prompt-only":
                about = _about(prompt, None, None)
            negatives = answers.get(about)
            order = ranked.get((prompt, _texts(negatives or ())))
            if order:
                yield Search(prompt, seed, mode, tuple(order), tried.get((prompt, seed), {}))


Worth = Callable[[Search, Candidate], float]


def report(journal: Journal, other: Mapping[str, Rescore] | None = None) -> dict[str, Any]:
    """Return the measures, as plain data; errors as `searches`.

    An order counts if every search was run to its end in it, else it is None and its arm is in
    `missing_arms`: the tries of one arm complete the order of another mostly where all were wrong.

    `other` names further ways of scoring, to be compared on the same pairs.
    """
    found = sorted(searches(journal), key=lambda one: (one.prompt, one.seed, one.mode))
    by_mode = {mode: [one for one in found if one.mode == mode] for mode in _modes(found)}
    ours = by_mode.get("caption", [])
    ranked, random_order = [one.ranked() for one in ours], [one.at_random() for one in ours]
    missing = [
        arm
        for arm, walks in (("npc", ranked), ("random-rank", random_order))
        if None in walks or (found and not ours)
    ]
    random_rank = None
    if "random-rank" not in missing:
        random_rank = [(one, walk or []) for one, walk in zip(ours, random_order, strict=True)]
    everything = [
        (one, [(c, one.verdicts[c.negative.text]) for c in one.candidates
               if c.negative.text in one.verdicts])
        for one in ours
    ]  # fmt: skip
    instead: dict[str, Worth] = {"targeted before untargeted": _targeted_first}
    instead |= {name: _rescored(ours, rescore) for name, rescore in (other or {}).items()}
    return {
        "failing": len({(one.prompt, one.seed) for one in found}),
        "missing_arms": missing,
        "ranking": {
            "tried in random order": _if_run(random_rank, _score),
            "all tried": _pairs(everything, _score),
            **{
                f"tried in random order, if ranked otherwise: {name}": _if_run(random_rank, worth)
                for name, worth in instead.items()
            },
        },
        "effort": {
            "ranked": None if "npc" in missing else _effort(ours, ranked),
            "random order": None if random_rank is None else _effort(ours, random_order),
        },
        "kinds": None if random_rank is None else _kinds(random_rank),
        "proposals": {
            mode: _effort(of_mode, [one.ranked() for one in of_mode])
            for mode, of_mode in by_mode.items()
            if mode != "caption"
        },
        "caption": None if "npc" in missing else _compared(by_mode, "prompt-only", "caption"),
        "kind_arms": _compared(by_mode, "untargeted-only", "targeted-only"),
    }


Tried = Sequence[tuple[Search, Sequence[tuple[Candidate, Verified]]]]


def _score(_search: Search, candidate: Candidate) -> float:
    return candidate.score


def _targeted_first(_search: Search, candidate: Candidate) -> float:
    return float(candidate.negative.kind == "targeted")


def _rescored(found: Sequence[Search], rescore: Rescore) -> Worth:
    """Return the worth of candidates by another scorer, asked for all of them at once."""
    texts = [[one.negative.text for one in search.candidates] for search in found]
    scores = rescore([(search.prompt, each) for search, each in zip(found, texts, strict=True)])
    known = {
        (search.prompt, text): score
        for search, each, row in zip(found, texts, scores, strict=True)
        for text, score in zip(each, row, strict=True)
    }
    return lambda search, candidate: known[search.prompt, candidate.negative.text]


def _if_run(tried: Tried | None, worth: Worth) -> dict[str, Any] | None:
    return None if tried is None else _pairs(tried, worth)


def _pairs(tried: Tried, worth: Worth) -> dict[str, Any]:
    """How often the better-ranked of two tried candidates has the better verifier score.

    Two of the same worth are no pair: nothing is said about them.
    """
    better = worse = ties = 0
    observed = []
    for search, tries in tried:
        for (a, one), (b, other) in combinations(tries, 2):
            first, second = (one, other)
            ahead = worth(search, a) - worth(search, b)
            if not ahead:
                continue
            if ahead < 0:
                first, second = other, one
            if first.score == second.score:
                ties += 1
                continue
            better += first.score > second.score
            worse += first.score < second.score
            observed.append(("", search.prompt, float(first.score > second.score)))
    return {
        "pairs": better + worse + ties,
        "better": better,
        "worse": worse,
        "ties": ties,
        "agreement": better / (better + worse) if better + worse else None,
        "interval_95": statistics.interval(observed, _ALL),
    }


def _effort(found: Sequence[Search], walks: Sequence[object]) -> dict[str, Any]:
    """How many images it took and how often one was right, over the searches that are complete."""
    images, corrected = [], []
    for search, walk in zip(found, walks, strict=True):
        if isinstance(walk, list):
            images.append(("", search.prompt, float(len(walk))))
            corrected.append(("", search.prompt, float(bool(walk) and walk[-1][1].correct)))
    return {
        "searches": len(images),
        "incomplete": len(found) - len(images),
        "images_per_failing_prompt": mean(value for _, _, value in images),
        "images_interval_95": statistics.interval(images, _ALL),
        "corrected": mean(value for _, _, value in corrected),
        "corrected_interval_95": statistics.interval(corrected, _ALL),
    }


def _kinds(tried: Tried) -> dict[str, Any]:
    """How often an image with a negative prompt of a kind was right, whatever its rank."""
    kinds: dict[Kind, list[tuple[str, str, float]]] = {"targeted": [], "untargeted": []}
    for search, tries in tried:
        for candidate, verdict in tries:
            right = ("", search.prompt, float(verdict.correct))
            kinds[candidate.negative.kind].append(right)
    return {
        kind: {
            "images": len(right),
            "right": mean(value for _, _, value in right),
            "interval_95": statistics.interval(right, _ALL),
        }
        for kind, right in kinds.items()
    }


def _compared(
    by_mode: Mapping[Proposals, Sequence[Search]], first: Proposals, second: Proposals
) -> dict[str, Any] | None:
    """Compare two ways of proposing on the base images that both were complete for."""
    sides = []
    for mode in (first, second):
        walks = {(one.prompt, one.seed): one.ranked() for one in by_mode.get(mode, ())}
        sides.append({key: walk for key, walk in walks.items() if walk})
    shared = sorted(sides[0].keys() & sides[1].keys())
    if not shared:
        return None
    right = [tuple(side[key][-1][1].correct for side in sides) for key in shared]
    images = [("", key[0], float(len(sides[1][key]) - len(sides[0][key]))) for key in shared]
    only_first = sum(one and not other for one, other in right)
    only_second = sum(other and not one for one, other in right)
    return {
        "first": first,
        "second": second,
        "searches": len(shared),
        "corrected": [mean(float(one[side]) for one in right) for side in (0, 1)],
        "only_first": only_first,
        "only_second": only_second,
        "p": statistics.mcnemar(only_first, only_second),
        "images_difference": mean(value for _, _, value in images),
        "images_difference_95": statistics.interval(images, _ALL),
    }


def _verdicts(journal: Journal) -> dict[tuple[str, str], tuple[Verified, str]]:
    """Return verdicts and their reasons by prompt and pixels."""
    return {
        (row.inputs["prompt"], row.inputs["image"]["pixels"]): (
            Verified(row.value["correct"], row.value["score"]),
            row.value["reason"],
        )
        for row in journal.rows("verify")
    }


def _modes(found: Sequence[Search]) -> list[Proposals]:
    return sorted({one.mode for one in found})


def _about(prompt: str, caption: str | None, reason: str | None) -> tuple[str, ...]:
    """Return what a proposal was made from, as a key."""
    return (prompt, json.dumps([caption, reason]))


def _texts(negatives: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(negative["text"] for negative in negatives)

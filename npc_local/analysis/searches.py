"""The searches that a benchmark's journal holds: wrong base images, and what was tried about them.

Everything is found in rows that are there: a base image, its verdict, its caption, what was
proposed and how that was ranked, and the verdicts of those candidates that were tried at the base
image's seed, by whichever arm. Nothing is made or asked. What the searches say about the method is
left to `agreement`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from npc_local.core.errors import ConfigError
from npc_local.core.files import paths
from npc_local.core.hashing import pixel_hash
from npc_local.core.records import Candidate, Proposals, Verdict
from npc_local.plans import shuffled
from npc_local.run.journal import readers
from npc_local.run.journal.database import IDENTITY, NAME
from npc_local.run.journal.journal import Journal
from npc_local.run.journal.readers import Asked

Tried = tuple[Candidate, Verdict]
"""A candidate, and what the verifier said of its image."""


@dataclass(frozen=True, slots=True)
class KeptSearch:
    """A wrong base image and the candidates of one way of proposing.

    Attributes:
        prompt: the prompt.
        seed: the base image's.
        proposals: the way of proposing.
        candidates: the highest salience first.
        verdicts: by negative prompt, of those that were tried at this seed by any arm.
    """

    prompt: str
    seed: int
    proposals: Proposals
    candidates: tuple[Candidate, ...]
    verdicts: Mapping[str, Verdict]

    def tried(self) -> list[Tried]:
        """Return all candidates that were tried, in the order of salience."""
        return [
            (candidate, self.verdicts[candidate.negative.text])
            for candidate in self.candidates
            if candidate.negative.text in self.verdicts
        ]

    def walk(self, order: Sequence[Candidate]) -> list[Tried] | None:
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

    def ranked(self) -> list[Tried] | None:
        """Return the tries in the order of salience."""
        return self.walk(self.candidates)

    def at_random(self) -> list[Tried] | None:
        """Return the tries in the order of the arm random-rank."""
        return self.walk(shuffled(self.candidates, self.prompt, self.seed))


def open_run(directory: Path) -> Journal:
    """Open the journal of a benchmark's run that is there, whatever its settings.

    Raises:
        ConfigError: there is no run, or it is no benchmark's.
        StorageError: another process has it open, or it cannot be read.
    """
    try:
        identity = json.loads((directory / IDENTITY).read_bytes())
    except (OSError, ValueError):
        identity = None
    if not isinstance(identity, dict) or not paths.is_file(directory / NAME, ConfigError):
        raise ConfigError(f"{directory}: no run of a benchmark; name the --out of one")
    if "suite" not in identity:
        raise ConfigError(
            f"{directory}: a run of prompts, not of a benchmark: it tries no other order to "
            "compare with; name the --out of `npc-local bench`"
        )
    return Journal.open(directory, identity)


def searches(journal: Journal) -> Iterator[KeptSearch]:
    """Yield every wrong base image with each way of proposing that was ranked.

    Raises:
        StorageError: the journal cannot be read.
    """
    captions, rankings = readers.captions(journal), readers.rankings(journal)
    proposals = readers.proposals(journal)
    ways: dict[Proposals, None] = dict.fromkeys(asked.proposals for asked in proposals)
    bases, tried = _base_images(journal)
    for (prompt, seed), (pixels, verdict) in bases.items():
        if verdict.correct:
            continue
        caption = captions.get(pixels)
        for way in ways:
            blind = way == "prompt-only"
            asked = Asked(
                prompt,
                way,
                None if blind or caption is None else caption.text,
                None if blind else verdict.reason,
            )
            if (proposal := proposals.get(asked)) is None:
                continue
            texts = tuple(negative.text for negative in proposal.negatives)
            if candidates := rankings.get((prompt, texts)):
                yield KeptSearch(prompt, seed, way, candidates, tried.get((prompt, seed), {}))


_Place = tuple[str, int]  # a prompt and a seed


def _base_images(
    journal: Journal,
) -> tuple[dict[_Place, tuple[str, Verdict]], dict[_Place, dict[str, Verdict]]]:
    """Return base images (pixels and verdict), and verdicts of candidates tried at their seeds.

    An image without a verdict is left out: its verifier failed. So is one that is damaged, which
    the benchmark's command makes anew, and one under a new seed, which is no answer to the base
    image.
    """
    verdicts = readers.verdicts(journal)
    bases: dict[_Place, tuple[str, Verdict]] = {}
    tried: dict[_Place, dict[str, Verdict]] = {}
    for render in readers.renders(journal):
        if render.at_new_seed or (image := readers.image(journal, render)) is None:
            continue
        shot, pixels = render.shot, pixel_hash(image)
        if (verdict := verdicts.get((shot.prompt, pixels))) is None:
            continue
        place = shot.prompt, shot.seed
        if shot.negative is None:
            bases[place] = pixels, verdict
        else:
            tried.setdefault(place, {})[shot.negative] = verdict
    return bases, tried

"""Every stage of the method, done once: looked up in the journal, else queued, done, and kept.

Many prompts share one `Stages`. Which stage comes when is left to `loop`, who has a generator or a
GPU when to `executor`, how an answer is kept to `journal`, what an agent is asked to `agents`. What
is written here of each stage's inputs is read back by `journal.readers`.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self, TypeVar

from PIL.Image import Image

from npc_local import agents
from npc_local.backends.base import Backend
from npc_local.core import costs
from npc_local.core.errors import NpcError
from npc_local.core.hashing import code_digest, digest, plain
from npc_local.core.records import (
    Candidate,
    Caption,
    Checklist,
    Negative,
    Proposal,
    Proposals,
    Render,
    Shot,
    Verdict,
)
from npc_local.generator.base import Generator, OnStep
from npc_local.run.components import Components
from npc_local.run.executor import Executor
from npc_local.run.identity import CODE
from npc_local.run.journal.codecs import Codec, Unreadable, codec_of
from npc_local.run.journal.journal import Failure, Journal, Row
from npc_local.run.journal.readers import MADE_FOR, MadeFor
from npc_local.run.single_flight import SingleFlight
from npc_local.salience.base import Scorer

T = TypeVar("T")
Work = Callable[[], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class StageKey:
    """What the journal finds a stage by.

    Attributes:
        kind: the stage's name, "verify" for example.
        key: the SHA-256 of all that determines its answer.
        inputs: what that is, as JSON data, and whom it is done for.
    """

    kind: str
    key: str
    inputs: Mapping[str, Any]


class Stages:
    """The stages of the method with one set of components, for one event loop; `loop.MethodStages`.

    Without a journal nothing is looked up or kept, no key is computed, no file is hashed, and what
    a stage costs is not counted, as nothing would hold it. With one, a stage that is asked for
    twice, at once or later, is done once. Whoever is cancelled stops waiting; a stage that nobody
    waits for any more is cancelled, an image in the making at its next denoising step, but an
    answer that is there is still kept. An error is never kept as an answer: all who wait see it,
    and the next request tries again.

    Attributes:
        components: who does the work.
    """

    def __init__(
        self,
        components: Components,
        journal: Journal | None = None,
        *,
        agents: int = 1,
        on_step: OnStep | None = None,
    ) -> None:
        """Take the components.

        Args:
            components: who does the work; open until the last stage has ended.
            journal: keeps the answers; None keeps none.
            agents: stages of agents under way at once; the votes of one verdict count as one.
            on_step: told of each denoising step, in the generator's thread.
        """
        if agents < 1:
            raise ValueError("at least one agent call at a time")
        self.components = components
        self._journal = journal
        self._executor = Executor(components, agents, on_step)
        self._notes: Mapping[str, Any] = {}
        self._searches: set[object] = set()  # under way; one set also where `made_for` copies
        if (sharing := components.gpu_sharing) is None:
            self._flights = SingleFlight()
        else:
            self._flights = SingleFlight(on_wait=sharing.look_again)
            sharing.quiet = lambda: len(self._searches) <= self._flights.waiting

    @contextmanager
    def search(self) -> Iterator[None]:
        """Count a search of several as under way while inside.

        A shared GPU changes hands when all of them wait for a stage: whoever does not is about to
        ask for one, and may need the models that are there.
        """
        search = object()
        self._searches.add(search)
        try:
            yield
        finally:
            self._searches.remove(search)
            if self.components.gpu_sharing is not None:
                self.components.gpu_sharing.look_again()

    def made_for(self, arm: str, seed: int) -> Self:
        """Return the same stages as one arm of a benchmark uses them, for a search from `seed`.

        New rows say so. It is no part of their keys: arms share the stages that they have in
        common.
        """
        stages = copy.copy(self)
        stages._notes = {MADE_FOR: asdict(MadeFor(arm, seed))}
        return stages

    @property
    def proposals(self) -> Proposals:
        """What negative prompts are proposed from, where a plan does not say."""
        return self.components.rules.proposals

    def accepts(self, prompt: str) -> None:
        """Make sure that all who have to read the prompt can work from it.

        Raises:
            PromptError: one of them cannot.
        """
        for part in (self.components.verifier, self.components.proposer, self.components.scorer):
            part.accepts(prompt)

    async def checklist(self, prompt: str) -> Checklist:
        """Derive from `prompt` alone what its images are checked for; errors as the role's."""
        agent = self.components.verifier
        work = partial(agents.checklist, agent, prompt)
        return await self._ask("checklist", agent, {"prompt": prompt}, work, Checklist)

    async def generate(self, shot: Shot) -> Render:
        """Make one image; errors as the generator's."""
        generator, work = self.components.generator, partial(self._executor.render, shot)
        return await self._once("generate", generator, {"shot": shot}, work, Render)

    async def verify(self, prompt: str, checklist: Checklist, image: Image) -> Verdict:
        """Judge one image under the components' rules; errors as the role's."""
        agent, rules = self.components.verifier, self.components.rules
        inputs = {
            "prompt": prompt,
            "checklist": checklist,
            "image": image,
            "strictness": rules.strictness,
            "votes": rules.votes,
        }
        work = partial(agents.verify, agent, prompt, checklist, image, rules)
        return await self._ask("verify", agent, inputs, work, Verdict)

    async def describe(self, image: Image) -> Caption:
        """Describe one image; errors as the role's."""
        agent = self.components.captioner
        work = partial(agents.describe, agent, image)
        return await self._ask("caption", agent, {"image": image}, work, Caption)

    async def propose(
        self,
        prompt: str,
        caption: Caption | None,
        reason: str,
        count: int,
        proposals: Proposals | None = None,
    ) -> Proposal:
        """Propose negative prompts; `proposals` None takes the rule. Errors as the role's."""
        agent, mode = self.components.proposer, proposals or self.proposals
        inputs: dict[str, Any] = {"prompt": prompt, "count": count, "mode": mode}
        if mode != "prompt-only":  # else the proposer sees neither
            inputs |= {"caption": None if caption is None else caption.text, "reason": reason}
        work = partial(agents.propose, agent, prompt, caption, reason, count, mode)
        return await self._ask("propose", agent, inputs, work, Proposal)

    async def rank(self, prompt: str, negatives: Sequence[Negative]) -> tuple[Candidate, ...]:
        """Sort negative prompts by salience, the highest first.

        Raises:
            NpcError: a score is not a number.
        """
        inputs = {"prompt": prompt, "negatives": tuple(negatives)}
        work = partial(self._executor.score, prompt, negatives)
        return await self._once("rank", self.components.scorer, inputs, work, tuple[Candidate, ...])

    async def once(
        self,
        kind: str,
        key: Mapping[str, Any],
        work: Work[T],
        shape: type[T],
        backend: str | None = None,
    ) -> T:
        """Have an agent do a stage that is not of the method: a judge's, for example.

        Args:
            kind: the name that the journal has for such stages.
            key: all that determines the answer: who gives it (a fingerprint), by which code
                (`hashing.code_digest`), from what. Records are taken as they are, images by their
                pixels.
            work: does the stage.
            shape: the type of its answer: a record, or anything else pydantic turns into JSON and
                back without loss.
            backend: whom `work` asks, by name; None: nobody.
        """
        work = partial(self._executor.ask, work, backend)
        return await self._once(kind, None, key, work, shape)

    async def _ask(
        self, kind: str, agent: Backend, inputs: Mapping[str, Any], work: Work[T], shape: type[T]
    ) -> T:
        """Have an agent do a stage of the method."""
        return await self._once(
            kind, agent, inputs, partial(self._executor.ask, work, agent.name), shape
        )

    async def _once(
        self,
        kind: str,
        who: Backend | Generator | Scorer | None,
        inputs: Mapping[str, Any],
        work: Work[T],
        shape: type[T],
    ) -> T:
        """Return the answer that the journal has, that somebody is waiting for, or a new one."""
        journal = self._journal
        if journal is None:
            unshared = object()
            return await self._flights.result(unshared, lambda: self._at_work(unshared, work))
        determinants: dict[str, Any] = {"kind": kind, **inputs}
        if who is not None:
            determinants["fingerprint"] = await self._executor.fingerprint(who)
            determinants["code"] = code_digest(*CODE[kind])
        data = await journal.aside(partial(plain, determinants))  # hashes pixels
        stage = StageKey(kind, digest(data), {**data, **self._notes})
        codec = codec_of(shape)
        return await self._flights.result(
            stage.key, lambda: self._find_or_do(journal, stage, work, codec)
        )

    async def _at_work(self, name: Hashable, work: Work[T]) -> T:
        """Do the work of the stage `name` that is neither looking up nor keeping."""
        with self._flights.at_work(name):
            return await work()

    async def _find_or_do(
        self, journal: Journal, stage: StageKey, work: Work[T], codec: Codec[T]
    ) -> T:
        """Look a stage up, else do it, and have it on the disk before anyone hears of it."""
        row = await journal.aside(partial(journal.take, stage.kind, stage.key))
        if row is not None:
            try:
                value = codec.together(row.value, row.image)
                return codec.kept_in(journal.image_path(row), value)
            except Unreadable as error:
                why = f"not a record of this version: {error}"
                await journal.aside(partial(journal.drop, stage.kind, stage.key, why))
        with costs.metering() as spent:
            try:
                value = await self._at_work(stage.key, work)
                data, image = codec.apart(value)
                done = Row(stage.kind, stage.key, stage.inputs, data, spent.cost())
                await journal.aside(partial(journal.add, done, image))
                return codec.kept_in(journal.image_path(done), value)
            except NpcError as error:
                if error.ends_run:
                    raise  # no fault of the stage's
                failure = Failure(
                    stage.kind, stage.key, stage.inputs, str(error), error.exit_code, spent.cost()
                )
                await journal.aside(partial(journal.add_failure, failure))
                raise

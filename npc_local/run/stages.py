"""Every step of the method, done once: looked up in the journal, else queued, done, and kept.

Many prompts share one `Stages`. Which step comes when is left to `loop`, who has a generator or a
GPU when to `resources`, how an answer is kept to `journal`, what an agent is asked to `roles`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from PIL.Image import Image

from npc_local import agents
from npc_local.backends.base import Backend
from npc_local.core import costs
from npc_local.core.errors import NpcError, StorageError
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
from npc_local.run.single_flight import SingleFlight
from npc_local.salience.base import Scorer

T = TypeVar("T")
Work = Callable[[], Awaitable[T]]


class Stages:
    """The steps of the method with one cast, for one event loop.

    Without a journal nothing is looked up or kept, no key is computed, and no file is hashed. With
    one, a step that is asked for twice, at once or later, is done once. Whoever is cancelled stops
    waiting; a step that nobody waits for any more is cancelled, except that a generator finishes
    its image and an answer that is there is still kept. An error is never kept as an answer: all
    who wait see it, and the next request tries again.

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
            components: who does the work; open until the last step has ended.
            journal: keeps the answers; None keeps none.
            agents: stages of agents under way at once; the votes of one verdict count as one.
            on_step: told of each denoising step, in the generator's thread.
        """
        if agents < 1:
            raise ValueError("at least one agent call at a time")
        self.components = components
        self._journal = journal
        self._executor = Executor(components, agents, on_step)
        self._searches = 0
        if (sharing := components.gpu_sharing) is None:
            self._shared = SingleFlight()
        else:
            self._shared = SingleFlight(on_wait=sharing.look_again)
            sharing.quiet = lambda: self._searches <= self._shared.waiting

    @contextmanager
    def search(self) -> Iterator[None]:
        """Count a search of several as under way while inside.

        A shared GPU changes hands when all of them wait for a stage: whoever does not is about to
        ask for one, and may need the models that are there.
        """
        self._searches += 1
        try:
            yield
        finally:
            self._searches -= 1
            if self.components.gpu_sharing is not None:
                self.components.gpu_sharing.look_again()

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
        return await self._step(
            "checklist",
            agent,
            {"prompt": prompt},
            lambda: self._executor.ask(lambda: agents.checklist(agent, prompt), agent.name),
            Checklist,
        )

    async def generate(self, shot: Shot) -> Render:
        """Make one image; errors as the generator's."""
        return await self._step(
            "generate",
            self.components.generator,
            {"shot": shot},
            lambda: self._executor.render(shot),
            Render,
        )

    async def verify(self, prompt: str, checklist: Checklist, image: Image) -> Verdict:
        """Judge one image under the cast's rules; errors as the role's."""
        agent, rules = self.components.verifier, self.components.rules
        return await self._step(
            "verify",
            agent,
            {
                "prompt": prompt,
                "checklist": checklist,
                "image": image,
                "strictness": rules.strictness,
                "votes": rules.votes,
            },
            lambda: self._executor.ask(
                lambda: agents.verify(agent, prompt, checklist, image, rules), agent.name
            ),
            Verdict,
        )

    async def describe(self, image: Image) -> Caption:
        """Describe one image; errors as the role's."""
        agent = self.components.captioner
        return await self._step(
            "caption",
            agent,
            {"image": image},
            lambda: self._executor.ask(lambda: agents.describe(agent, image), agent.name),
            Caption,
        )

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
        asked: dict[str, Any] = {"prompt": prompt, "count": count, "mode": mode}
        if mode != "prompt-only":  # else the proposer sees neither
            asked |= {"caption": None if caption is None else caption.text, "reason": reason}
        return await self._step(
            "propose",
            agent,
            asked,
            lambda: self._executor.ask(
                lambda: agents.propose(agent, prompt, caption, reason, count, mode), agent.name
            ),
            Proposal,
        )

    async def rank(self, prompt: str, negatives: Sequence[Negative]) -> tuple[Candidate, ...]:
        """Sort negative prompts by salience, the highest first.

        Raises:
            NpcError: a score is not a number.
        """
        return await self._step(
            "rank",
            self.components.scorer,
            {"prompt": prompt, "negatives": tuple(negatives)},
            lambda: self._executor.score(prompt, negatives),
            tuple[Candidate, ...],
        )

    async def once(self, kind: str, key: Mapping[str, Any], work: Work[T], shape: type[T]) -> T:
        """Have an agent do a step that is not of the method: a judge's, for example.

        Args:
            kind: the name that the journal has for such steps.
            key: all that determines the answer: who gives it (a fingerprint), by which code
                (`identity.code_digest`), from what. Records are taken as they are, images by their
                pixels.
            work: does the step.
            shape: the type of its answer: a record, or anything else pydantic turns into JSON and
                back without loss.
        """
        return await self._step(kind, None, key, lambda: self._executor.ask(work), shape)

    async def _step(
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
            return await self._shared.result(unshared, lambda: self._at_work(unshared, work))
        key: Mapping[str, Any] = {"kind": kind, **inputs}
        if who is not None:
            code = code_digest(*CODE[kind])
            key = {**key, "fingerprint": await self._executor.fingerprint(who), "code": code}
        asked = await journal.aside(partial(plain, key))  # hashes pixels
        row = Row(kind, digest(asked), asked, None)
        form = codec_of(shape)
        return await self._shared.result(
            row.key, lambda: self._find_or_do(journal, row, work, form)
        )

    async def _at_work(self, name: Hashable, work: Work[T]) -> T:
        """Do the work of the step `name` that is neither looking up nor keeping."""
        with self._shared.at_work(name):
            return await work()

    async def _find_or_do(self, journal: Journal, row: Row, work: Work[T], form: Codec[T]) -> T:
        """Look a step up, else do it, and have it on the disk before anyone hears of it.

        `row` lacks the answer.
        """
        found = await journal.aside(partial(journal.take, row.kind, row.key))
        if found is not None:
            try:
                return form.together(found.value, found.image)
            except Unreadable as error:
                why = f"not a record of this version: {error}"
                await journal.aside(partial(journal.drop, row.kind, row.key, why))
        with costs.metering() as spent:
            try:
                value = await self._at_work(row.key, work)
                data, image = form.apart(value)
                done = replace(row, value=data, cost=spent.cost())
                await journal.aside(partial(journal.add, done, image))
            except StorageError:
                raise  # no fault of the step's
            except NpcError as error:
                failure = Failure(
                    row.kind, row.key, row.inputs, str(error), error.exit_code, spent.cost()
                )
                await journal.aside(partial(journal.add_failure, failure))
                raise
        return value

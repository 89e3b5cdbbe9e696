"""The Python interface: prompts in, a `Correction` for each out.

`open` loads models once, for many prompts; `correct` and `acorrect` are for a single one. A file of
prompts, and a run that goes on after a crash, are left to the command line.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from npc_local.core.background_loop import BackgroundLoop
from npc_local.core.config.load import Config, ResolvedProfile, load_config
from npc_local.core.errors import ConfigError
from npc_local.core.numbers import whole_number
from npc_local.core.prompts import check_prompt
from npc_local.core.records import Checklist, Correction
from npc_local.generator.base import Generator
from npc_local.generator.family import Pipeline
from npc_local.generator.pipeline_generator import PipelineGenerator
from npc_local.loop import Watch, ignore
from npc_local.loop import correct as search
from npc_local.run.factory import open_components
from npc_local.run.output.directories import output_directory
from npc_local.run.output.result_folder import ResultFolder
from npc_local.run.pool import AGENTS
from npc_local.run.session import OpenComponents, open_session
from npc_local.run.stages import Stages
from npc_local.salience.base import Scorer

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


def _documented_as(other: Callable[..., Any]) -> Callable[[F], F]:
    """Add to a docstring what another one says after its first line."""

    def add(function: F) -> F:
        _, _, rest = (inspect.getdoc(other) or "").partition("\n")
        function.__doc__ = f"{inspect.getdoc(function)}\n{rest}"
        return function

    return add


@dataclass(frozen=True, slots=True)
class _Order:
    """What is wanted for one prompt, checked; `candidates` None takes the profile's number."""

    prompt: str
    seed: int
    candidates: int | None
    checklist: Checklist | None

    @classmethod
    def checked(
        cls, prompt: str, seed: int, candidates: int | None, checklist: Checklist | None
    ) -> Self:
        """Refuse what cannot be done, before any work.

        Raises:
            PromptError: the prompt cannot be used.
            ConfigError: a number or the checklist cannot.
        """
        prompt = check_prompt(prompt)
        if not 0 <= (seed := whole_number("seed", seed)) < 2**63:
            raise ConfigError(f"seed: found {seed}; must be from 0 to 2**63 - 1")
        if candidates is not None and (candidates := whole_number("candidates", candidates)) < 1:
            raise ConfigError(f"candidates: found {candidates}; must be at least 1")
        if checklist is not None and not checklist.demands:
            raise ConfigError("checklist: empty; an image cannot be judged by nothing")
        return cls(prompt, seed, candidates, checklist)


class Session:
    """Models that are loaded once, for many prompts. `npc_local.open` makes one.

    In a `with` statement, `correct` may be called from any number of threads, and from a notebook;
    in an `async with` statement, `acorrect` may be awaited any number of times at once. Searches
    share the models, and wait for each other where they must.

    Attributes:
        profile: the settings.
    """

    def __init__(
        self,
        profile: ResolvedProfile,
        opening: OpenComponents,
        agents: int,
        on_status: Callable[[str], None],
        instead: Mapping[str, Any],
    ) -> None:
        """Take what `open` has checked; nothing is loaded yet."""
        self.profile = profile
        self._opening = opening
        self._agents = agents
        self._on_status = on_status
        self._instead = instead
        self._stack: AsyncExitStack | None = None
        self._stages: Stages | None = None
        self._background: BackgroundLoop | None = None

    async def __aenter__(self) -> Self:
        """Open the profile: servers start, backends are checked."""
        if self._stack is not None:
            raise RuntimeError("this session is open already; make another one")
        async with AsyncExitStack() as stack:
            self._stages = await stack.enter_async_context(
                open_session(
                    self.profile,
                    agents=self._agents,
                    open_components=self._opening,
                    on_status=self._on_status,
                )
            )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stack, self._stack, self._stages = self._stack, None, None
        if stack is not None:
            await stack.aclose()

    def __enter__(self) -> Self:
        """Open the profile in a thread of its own: servers start, backends are checked."""
        if self._background is not None or self._stack is not None:
            raise RuntimeError("this session is open already; make another one")
        background = BackgroundLoop()
        try:
            background.run(self.__aenter__())
        except BaseException:
            background.close()
            raise
        self._background = background
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        background, self._background = self._background, None
        if background is not None:
            try:
                background.run(self.__aexit__(kind, error, traceback))
            finally:
                background.close()

    def correct(
        self,
        prompt: str,
        *,
        seed: int = 0,
        candidates: int | None = None,
        checklist: Checklist | None = None,
        watch: Watch = ignore,
    ) -> Correction:
        """Look for an image that matches `prompt`, in a `with` statement.

        Args:
            prompt: what the image should show.
            seed: fixes the noise of every image made, from 0 to 2**63 - 1.
            candidates: negative prompts to try at most; None takes the profile's number.
            checklist: what the images are checked for; None has the verifier derive it from the
                prompt.
            watch: is told when each stage begins and ends (`StageStarted`, `StageFinished` of
                `npc_local.loop`), in the event loop's thread.

        Returns:
            The whole record. A failure on the way is in it (status "error"), with what came before;
            what would fail with every prompt is raised.

        Raises:
            PromptError: the prompt is empty, too long, or has control characters.
            ConfigError: an argument is not allowed, or a setting does not fit the model.
            DeviceLostError: the GPU is of no use to this process any more.
        """
        order = _Order.checked(prompt, seed, candidates, checklist)
        if self._background is None:
            raise RuntimeError("correct() needs a session opened by `with npc_local.open(...)`")
        return self._background.run(self._correct(order, watch))

    @_documented_as(correct)
    async def acorrect(
        self,
        prompt: str,
        *,
        seed: int = 0,
        candidates: int | None = None,
        checklist: Checklist | None = None,
        watch: Watch = ignore,
    ) -> Correction:
        """Look for an image that matches `prompt`, in an `async with` statement.

        Cancelled, it ends at once, and the image in the making at its next denoising step.
        """
        order = _Order.checked(prompt, seed, candidates, checklist)
        if self._background is not None or self._stages is None:
            raise RuntimeError(
                "acorrect() needs a session opened by `async with npc_local.open(...)`"
            )
        return await self._correct(order, watch)

    def save(self, correction: Correction, directory: PathLike[str] | str) -> Path:
        """Write what the command writes for a prompt: all images, the sheet, and correction.json.

        Args:
            correction: what this session has made.
            directory: a new directory, or an empty one.

        Returns:
            The directory, as an absolute path; the answer in it is image.png.

        Raises:
            StorageError: the directory holds something, or cannot be written to.
        """
        with output_directory(Path(directory)) as path:
            ResultFolder(path, self.profile, self._instead).save(correction)
        return path

    async def _correct(self, order: _Order, watch: Watch) -> Correction:
        assert self._stages is not None
        count = self.profile.candidates if order.candidates is None else order.candidates
        with self._stages.search():
            return await search(
                order.prompt,
                self._stages,
                seed=order.seed,
                candidates=count,
                checklist=order.checklist,
                watch=watch,
            )


def open(
    profile: str | None = None,
    *,
    config: Config | PathLike[str] | str | None = None,
    pipeline: Pipeline | None = None,
    generator: Generator | None = None,
    scorer: Scorer | None = None,
    agents: int = AGENTS,
    on_status: Callable[[str], None] = log.warning,
    **sampling: Any,
) -> Session:
    """Return a session: models loaded once, for many prompts. Use it in `with` or `async with`.

    Generator and encoder load with the first image. Libraries are told not to use the network; to
    have every attempt of this program refused, stay inside
    `with npc_local.core.offline.switches.guard():`, which holds for all threads.

    Args:
        profile: a profile of models.toml; None takes the default one.
        config: a loaded configuration or the path of a models.toml; None finds one.
        pipeline: a diffusers pipeline of yours that makes the images in place of the profile's
            generator. Several threads, and several sessions, may share it.
        generator: makes the images in place of the profile's generator.
        scorer: ranks the negative prompts in place of the profile's encoder.
        agents: calls of agents under way at once, of all searches together.
        on_status: is told of servers that start, and of calls that are tried again; left out, the
            log is.
        sampling: with `pipeline` only, what `PipelineGenerator` takes: true_cfg_scale,
            negative_steps, after, allow_distilled, and arguments of the pipeline call such as
            num_inference_steps, height and width.

    Raises:
        ConfigError: a setting is not allowed, or the pipeline would ignore a negative prompt.

    Opening it raises, beside these:
        BackendError: a backend cannot serve.
        ModelFilesError: a model directory is missing, incomplete or damaged.
    """
    if (agents := whole_number("agents", agents)) < 1:
        raise ConfigError(f"agents: found {agents}; must be at least 1")
    instead: dict[str, Any] = {}
    if pipeline is not None:
        if generator is not None:
            raise ConfigError(
                "give either a pipeline or an npc_local generator of images, not both; the noise "
                "comes from seed"
            )
        generator = PipelineGenerator(pipeline, **sampling)
        instead["generator"] = {"pipeline": type(pipeline).__name__, **sampling}
    elif sampling:
        raise TypeError(f"arguments that go with a pipeline only: {', '.join(sampling)}")
    elif generator is not None:
        instead["generator"] = type(generator).__name__
    if scorer is not None:
        instead["encoder"] = type(scorer).__name__
    if not isinstance(config, Config):
        config = load_config(None if config is None else Path(config))
    opening = partial(open_components, generator=generator, scorer=scorer)
    return Session(config.profile(profile), opening, agents, on_status, instead)


async def acorrect(
    prompt: str,
    *,
    profile: str | None = None,
    config: Config | PathLike[str] | str | None = None,
    seed: int = 0,
    candidates: int | None = None,
    checklist: Checklist | None = None,
    pipeline: Pipeline | None = None,
    generator: Generator | None = None,
    scorer: Scorer | None = None,
    watch: Watch = ignore,
    **sampling: Any,
) -> Correction:
    """Look for an image that matches `prompt`.

    The models are loaded anew on each call; `npc_local.open` loads them once. Libraries are told
    not to use the network; to have every attempt of this program refused, call this inside
    `with npc_local.core.offline.switches.guard():`, which holds for all threads. Cancelled, it ends
    at once, and the image in the making at its next denoising step.

    Args:
        prompt: what the image should show.
        profile: a profile of models.toml; None takes the default one.
        config: a loaded configuration or the path of a models.toml; None finds one.
        seed: fixes the noise of every image made, from 0 to 2**63 - 1.
        candidates: negative prompts to try at most; None takes the profile's number.
        checklist: what the images are checked for; None has the verifier derive it from the prompt.
        pipeline: a diffusers pipeline of yours that makes the images in place of the profile's
            generator. Several threads may share it.
        generator: makes the images in place of the profile's generator.
        scorer: ranks the negative prompts in place of the profile's encoder.
        watch: is told when each stage begins and ends (`StageStarted`, `StageFinished` of
            `npc_local.loop`).
        sampling: with `pipeline` only, what `PipelineGenerator` takes: true_cfg_scale,
            negative_steps, after, allow_distilled, and arguments of the pipeline call such as
            num_inference_steps, height and width.

    Returns:
        The whole record. A failure on the way is in it (status "error"), with what came before;
        what would fail with every prompt is raised.

    Raises:
        PromptError: the prompt is empty, too long, or has control characters.
        ConfigError: a setting is not allowed, or the pipeline would ignore a negative prompt.
        BackendError: a backend cannot serve, found before any work.
        ModelFilesError: a model directory is missing, incomplete or damaged.
        DeviceLostError: the GPU is of no use to this process any more.
    """
    order = _Order.checked(prompt, seed, candidates, checklist)
    session = open(
        profile, config=config, pipeline=pipeline, generator=generator, scorer=scorer, **sampling
    )
    async with session:
        return await session._correct(order, watch)


@_documented_as(acorrect)
def correct(
    prompt: str,
    *,
    profile: str | None = None,
    config: Config | PathLike[str] | str | None = None,
    seed: int = 0,
    candidates: int | None = None,
    checklist: Checklist | None = None,
    pipeline: Pipeline | None = None,
    generator: Generator | None = None,
    scorer: Scorer | None = None,
    watch: Watch = ignore,
    **sampling: Any,
) -> Correction:
    """Look for an image that matches `prompt`, from code that is not asynchronous.

    Inside a running event loop, as in a notebook, it raises RuntimeError: await `acorrect` there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError(
            "npc_local.correct() cannot run inside an event loop; "
            "use `await npc_local.acorrect(...)` with the same arguments"
        )
    return asyncio.run(
        acorrect(
            prompt,
            profile=profile,
            config=config,
            seed=seed,
            candidates=candidates,
            checklist=checklist,
            pipeline=pipeline,
            generator=generator,
            scorer=scorer,
            watch=watch,
            **sampling,
        )
    )

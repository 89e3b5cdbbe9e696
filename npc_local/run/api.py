"""The Python interface: one prompt in, one `Correction` out.

Many prompts, resuming and files are left to the engine behind the command line.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from npc_local.core.config.load import Config, load_config
from npc_local.core.errors import ConfigError
from npc_local.core.prompts import check_prompt
from npc_local.core.records import Checklist, Correction
from npc_local.generator.base import Generator
from npc_local.generator.family import Pipeline
from npc_local.generator.pipeline_generator import PipelineGenerator
from npc_local.loop import Watch, ignore
from npc_local.loop import correct as run_loop
from npc_local.run.factory import open_components
from npc_local.run.stages import Stages
from npc_local.salience.base import Scorer


async def acorrect(
    prompt: str,
    *,
    profile: str | None = None,
    config: Config | Path | str | None = None,
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

    The models are loaded anew on each call; pass a `generator` and a `scorer` to keep yours.
    Libraries are told not to use the network; to have every attempt of this program refused, call
    this inside `with npc_local.core.offline.switches.guard():`, which holds for all threads.

    Args:
        prompt: what the image should show.
        profile: a profile of models.toml; None takes the default one.
        config: a loaded configuration or the path of a models.toml; None finds one.
        seed: fixes the noise of every image made.
        candidates: negative prompts to try at most; None takes the profile's number.
        checklist: what the images are checked for; None has the verifier derive it from the prompt.
        pipeline: a diffusers pipeline of yours that makes the images in place of the profile's
            generator.
        generator: makes the images in place of the profile's generator.
        scorer: ranks the negative prompts in place of the profile's encoder.
        watch: is told when each stage begins and ends (`StageStarted`, `StageFinished` of
            `npc_local.loop`).
        sampling: with `pipeline` only, what `PipelineGenerator` takes: true_cfg_scale,
            negative_steps, after, and arguments of the pipeline call such as height.

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
    prompt = check_prompt(prompt)
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed: found {seed}; must be from 0 to 2**63 - 1")
    if candidates is not None and candidates < 1:
        raise ConfigError(f"candidates: found {candidates}; must be at least 1")
    if checklist is not None and not checklist.demands:
        raise ConfigError("checklist: empty; an image that nothing is asked of cannot be judged")
    if pipeline is not None:
        if generator is not None:
            raise ConfigError(
                "give either a pipeline or an npc_local generator of images, not both; the noise "
                "comes from seed"
            )
        generator = PipelineGenerator(pipeline, **sampling)
    elif sampling:
        raise TypeError(f"arguments that go with a pipeline only: {', '.join(sampling)}")
    if not isinstance(config, Config):
        config = load_config(None if config is None else Path(config))
    chosen = config.profile(profile)
    async with open_components(chosen, generator=generator, scorer=scorer) as components:
        return await run_loop(
            prompt,
            Stages(components),
            seed=seed,
            candidates=chosen.candidates if candidates is None else candidates,
            checklist=checklist,
            watch=watch,
        )


def correct(
    prompt: str,
    *,
    profile: str | None = None,
    config: Config | Path | str | None = None,
    seed: int = 0,
    candidates: int | None = None,
    checklist: Checklist | None = None,
    pipeline: Pipeline | None = None,
    generator: Generator | None = None,
    scorer: Scorer | None = None,
    watch: Watch = ignore,
    **sampling: Any,
) -> Correction:
    """Do as `acorrect` does, from code that is not asynchronous.

    Raises:
        RuntimeError: called inside a running event loop, as in a notebook: await `acorrect` there.
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

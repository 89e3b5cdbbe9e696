"""From a resolved profile to an open `Cast`: backends checked before work and closed after it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from npc_local.backends import open_backend
from npc_local.backends.base import Backend
from npc_local.config import ResolvedProfile
from npc_local.diffusion.base import Generator
from npc_local.loop import Cast
from npc_local.salience.base import Scorer


@asynccontextmanager
async def open_cast(
    profile: ResolvedProfile, *, generator: Generator | None = None, scorer: Scorer | None = None
) -> AsyncIterator[Cast]:
    """Open everything that `profile` names, each backend once; `generator`, `scorer` replace its.

    Model directories are checked here; the models themselves load with their first use.

    Raises:
        ConfigError: an entry points at something that cannot be used.
        BackendError: a backend cannot serve now.
        ModelFilesError: a model directory is missing, incomplete or damaged.
    """
    async with AsyncExitStack() as stack:
        backends: dict[str, Backend] = {}
        for name, settings in profile.backends.items():
            backends[name] = backend = open_backend(name, settings)
            stack.push_async_callback(backend.aclose)
            await backend.check()
        if generator is None:
            from npc_local.diffusion.generator import DiffusersGenerator

            generator = DiffusersGenerator(profile.generator)
        if scorer is None:
            scorer = _open_scorer(profile, generator)
        yield Cast(
            generator=generator,
            verifier=backends[profile.verifier],
            captioner=backends[profile.captioner],
            proposer=backends[profile.proposer],
            scorer=scorer,
        )


def _open_scorer(profile: ResolvedProfile, generator: Generator) -> Scorer:
    """Open the profile's encoder; one that the generator holds anyway is not loaded twice."""
    from npc_local.diffusion.generator import DiffusersGenerator
    from npc_local.salience.scorer import T5Scorer

    encoder = profile.encoder
    if isinstance(generator, DiffusersGenerator):
        home = generator.settings
        parts = encoder.tokenizer, encoder.text_encoder
        wanted = encoder.path, encoder.dtype, encoder.device, parts
        if wanted == (home.path, home.dtype, home.device, ("tokenizer_2", "text_encoder_2")):
            return T5Scorer.sharing(
                encoder, lambda: (generator.pipe.tokenizer_2, generator.pipe.text_encoder_2)
            )
    return T5Scorer(encoder)

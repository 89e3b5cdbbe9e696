"""The negative prompt in the first denoising steps only, on an unchanged diffusers pipeline.

The method lets a negative prompt act in the first steps and not later (paper, section 3: later
steps hardly react to it). A stock pipeline applies it in every step. Instead of a copy of the
pipeline's loop, this module stands between the pipeline and its transformer: the pipeline keeps
asking for both predictions in every step, and from step `steps` on the negative one is answered
with something else. Leaves out: loading pipelines and calling them (`generator`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from npc_local.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

After = Literal["off", "null"]
# A FluxPipeline: diffusers loads its classes lazily, and type checkers see them as empty.
Pipeline: TypeAlias = Any

# accelerate's offload hooks keep the forward that they wrap here, and put it back into `forward`
# after every pipeline call: whoever replaces `forward` itself is gone after the first image.
_FORWARD_SLOTS = ("_old_forward", "forward")


def check_true_cfg_scale(scale: float) -> None:
    """Refuse a true-CFG scale at which diffusers would ignore the negative prompt.

    Raises:
        ConfigError: `scale` is not greater than 1.
    """
    if not scale > 1:
        raise ConfigError(
            f"true_cfg_scale = {scale} would ignore the negative prompt; it must be greater than 1"
        )


class Gate:
    """What stands between one pipeline and its transformer while `early_negative` is active.

    Attributes:
        forwards: transformer forwards really computed so far, over all calls of the pipeline.
    """

    def __init__(self, pipe: Pipeline, steps: int, null: tuple[Tensor, Tensor] | None) -> None:
        """Remember what to wrap; `attach` wraps it."""
        self.forwards = 0
        self._pipe = pipe
        self._steps = steps
        self._null = null
        self._transformer = pipe.transformer
        self._computed_context = self._transformer.cache_context
        self._own_forward = "forward" in vars(self._transformer)
        hooked = _FORWARD_SLOTS[0] in vars(self._transformer)
        self._slot = _FORWARD_SLOTS[0] if hooked else _FORWARD_SLOTS[1]
        self._computed = getattr(self._transformer, self._slot)
        self._branch: str | None = None
        self._conditional: Any = None

    def attach(self) -> None:
        """Put this gate in place of the transformer's forward and cache_context.

        Raises:
            ConfigError: another gate is there already.
        """
        if isinstance(getattr(self._computed_context, "__self__", None), Gate):
            raise ConfigError("early_negative is already active on this pipeline; leave it first")
        setattr(self._transformer, self._slot, self.forward)
        self._transformer.cache_context = self.cache_context

    def detach(self) -> None:
        """Give the transformer back exactly as it was found."""
        del self._transformer.cache_context
        for slot in _FORWARD_SLOTS:
            if vars(self._transformer).get(slot) == self.forward:
                setattr(self._transformer, slot, self._computed)
        if not self._own_forward and vars(self._transformer).get("forward") == self._computed:
            del self._transformer.forward

    @contextmanager
    def cache_context(self, name: str, **where: Any) -> Iterator[None]:
        """Note which prediction the pipeline is about to ask for: "cond" or "uncond"."""
        with self._computed_context(name, **where):
            self._branch = name
            try:
                yield
            finally:
                self._branch = None

    def forward(self, *args: Any, **inputs: Any) -> Any:
        """Compute the prediction, or answer a late negative one without its prompt.

        Replaying the conditional output p as the negative one makes the pipeline's
        n + s * (p - n) equal p bit for bit, whatever the scale s.
        """
        if self._branch == "cond":
            self.check_negative_was_used()
        elif self._branch == "uncond":
            conditional, self._conditional = self._conditional, None
            if self._step() >= self._steps:
                if self._null is None:
                    return conditional
                inputs |= _null_inputs(self._null, inputs)
        output = self._computed(*args, **inputs)
        self.forwards += 1
        if self._branch == "cond":
            self._conditional = output
        return output

    def check_negative_was_used(self) -> None:
        """Refuse a pipeline call that never asked for the negative prediction.

        Raises:
            ConfigError: a conditional prediction was not followed by an unconditional one.
        """
        if self._conditional is not None:
            self._conditional = None
            raise ConfigError(
                "the pipeline ignored the negative prompt: inside early_negative, call it with "
                "a negative_prompt (or its embeddings) and a true_cfg_scale greater than 1"
            )

    def _step(self) -> int:
        """Return the index of the current denoising step, from 0.

        The scheduler's own count: it restarts with every call, also after one that failed.
        """
        return self._pipe.scheduler.step_index or 0


@contextmanager
def early_negative(
    pipe: Pipeline,
    steps: int = 3,
    after: After = "off",
    *,
    null: tuple[Tensor, Tensor] | None = None,
    max_sequence_length: int = 512,
) -> Iterator[Gate]:
    """Let the negative prompt of every call of `pipe` act in its first denoising steps only.

    Call the pipeline inside as always, with a negative prompt and true_cfg_scale > 1. Enable
    offloading, caches and compilation before entering. Not thread-safe, as the pipeline is not.

    Args:
        pipe: a FluxPipeline; it is wrapped in place and restored on exit, whatever happens.
        steps: denoising steps that the negative acts in. 0: none; as many as the call has
            steps, or more: the stock pipeline.
        after: the later steps. "off": no true CFG, one forward a step (the paper's FLUX.1-dev
            runs). "null": true CFG against the null prompt "", for models whose images are
            made with CFG throughout.
        null: for after="null", the null prompt's (prompt_embeds (1, L, D), pooled_prompt_embeds
            (1, P)), if they are at hand; computed once otherwise.
        max_sequence_length: L, the one that the pipeline is called with; used to compute `null`.

    Yields:
        The gate; its `forwards` counts the transformer forwards really computed.

    Raises:
        ConfigError: the pipeline is of another class or already gated, an argument is out of
            range, or a call inside ignored the negative prompt.
    """
    _check_usable(pipe, steps, after)
    if after == "off":
        null = None
    elif null is None:
        null = encode(pipe, "", max_sequence_length)
    gate = Gate(pipe, steps, null)
    gate.attach()
    try:
        yield gate
        gate.check_negative_was_used()
    finally:
        gate.detach()


def encode(pipe: Pipeline, text: str, max_sequence_length: int) -> tuple[Tensor, Tensor]:
    """Return (prompt_embeds (1, L, D), pooled_prompt_embeds (1, P)) as `pipe` itself makes them."""
    import torch

    with torch.no_grad():
        embeds, pooled, _ = pipe.encode_prompt(text, max_sequence_length=max_sequence_length)
    return embeds, pooled


def _check_usable(pipe: Pipeline, steps: int, after: str) -> None:
    """Raise ConfigError unless `pipe` can be gated with these arguments."""
    from diffusers import FluxPipeline

    if not isinstance(pipe, FluxPipeline):
        raise ConfigError(f"early_negative supports FluxPipeline, not {type(pipe).__name__}")
    if steps < 0:
        raise ConfigError(f"steps = {steps} must be 0 or more")
    if after not in ("off", "null"):
        raise ConfigError(f"after = {after!r} must be 'off' or 'null'")


def _null_inputs(null: tuple[Tensor, Tensor], inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the text inputs of the transformer with the null prompt, one row an image.

    Raises:
        ConfigError: the null prompt was encoded to another length than the negative one.
    """
    negative = inputs["encoder_hidden_states"]
    embeds, pooled = (part.to(negative.device, negative.dtype) for part in null)
    if embeds.shape[1] != negative.shape[1]:
        raise ConfigError(
            f"the null prompt was encoded to {embeds.shape[1]} tokens, the negative prompt to "
            f"{negative.shape[1]}; give early_negative the call's max_sequence_length"
        )
    images = negative.shape[0]
    return {
        "encoder_hidden_states": embeds.expand(images, -1, -1),
        "pooled_projections": pooled.expand(images, -1),
    }

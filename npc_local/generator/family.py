"""What there is to know of a model family to confine a negative prompt in its pipeline.

Leaves out: which families there are (`families`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

# A diffusers pipeline: its classes load lazily, and type checkers see them as empty.
Pipeline: TypeAlias = Any
After = Literal["off", "null"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How one model family takes a negative prompt.

    Attributes:
        name: what its makers call the model.
        pipeline: the diffusers text-to-image class; subclasses count too.
        guides: how a guided step asks the denoiser. "two calls": conditional, then
            unconditional. "one batch": both at once, unconditional first unless
            `conditional_first`.
        after: the default for the late steps. "off" where the makers sample without CFG,
            "null" where they use it throughout.
        scale: the call argument that holds the scale of CFG; "guider": an attribute of the
            pipeline's guider instead.
        scale_off: the largest value of `scale` that switches CFG off. Where it is 0, the
            pipeline's scale is one lower than the usual one.
        default_scale: the usual scale, s in n + s * (p - n), that it is used with here; None:
            the one that its pipeline has by default.
        null: the negative prompt that the pipeline's own baseline uses; None where the baseline
            is made without naming one.
        takes_text: False where the call takes negative embeddings only.
        embedded: the call argument of a guidance scale that is an input of the denoiser.
        fixed: call arguments that a generator always sets, with the reason in a comment.
        batch_dims: denoiser inputs whose batch is not in dimension 0.
        reuses_first: whether the conditional prediction of step 0 may be replayed to other
            calls with the same prompt and noise, bit for bit.
        compiles: whether diffusers names the repeated blocks of its denoiser to compile.
        caches: whether diffusers' caches work: its blocks are known to them, and its pipeline
            tells them which prediction is which.
        loras: whether its pipeline loads LoRAs.
        attention_mask: what its attention is given beside queries, keys and values, which not every
            backend takes. "keys": a bool for each key. "pairs", "weights": a bool, a number for
            each query with each key. None: nothing, or it takes no backend.
        reads: text tokens that the model reads, where no call argument says so.
        tokenizer: the component that counts them.
        template_tokens: tokens of that limit that the pipeline's own template takes, at most.
        size_multiple: sides of an image must be multiples of this many latent pixels.
        undistilled: what to use in place of a distilled checkpoint of this family.
        distilled_names: words in a checkpoint's name that mark it as distilled, in this family.
        notes: what a user should know.
    """

    name: str
    pipeline: str
    guides: Literal["two calls", "one batch"]
    after: After = "null"
    scale: str = "guidance_scale"
    scale_off: float = 1.0
    default_scale: float | None = None
    conditional_first: bool = False
    null: str | None = ""
    takes_text: bool = True
    embedded: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    batch_dims: Mapping[str, int] = field(default_factory=dict)
    reuses_first: bool = True
    compiles: bool = True
    caches: bool = False
    loras: bool = True
    attention_mask: Literal["keys", "pairs", "weights"] | None = None
    reads: int | None = None
    tokenizer: str = "tokenizer"
    template_tokens: int = 0
    size_multiple: int = 2
    undistilled: str = ""
    distilled_names: tuple[str, ...] = ()
    notes: str = ""

    def native_scale(self, true_cfg_scale: float) -> float:
        """Return the value of `scale` that stands for the usual n + s * (p - n)."""
        return true_cfg_scale - 1 + self.scale_off


def denoiser_of(pipe: Pipeline) -> Any:
    """Return the model that predicts the noise: the pipeline's transformer or unet."""
    denoiser = getattr(pipe, "transformer", None)
    return pipe.unet if denoiser is None else denoiser

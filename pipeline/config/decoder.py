"""`decoder` and `imagine`: what turns a feature of f_M back into an image, and what is shown of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.config.ranges import Count, CountOrZero, NotNegative, Positive, Share
from pipeline.config.section import Section, require
from pipeline.config.training import OptimiserParams


@dataclass(kw_only=True)
class DecoderParams(OptimiserParams):
    """`decoder`: a SANA transformer that sees z, its sizes by SANA's names, and its training by flow matching."""

    section: ClassVar[str] = "decoder"

    checkpoint: str
    """A SANA of diffusers' layout, from which training starts, and whose autoencoder makes the latents; empty: the
    transformer starts at random and works on pixels."""
    revision: str
    """The checkpoint's pinned revision."""
    image_size: Count
    """Side of a decoded image, in pixels."""
    patch_size: Count
    """Side of a patch, in pixels, or in latents of 32 x 32 pixels."""
    width: Count
    """Width of the transformer."""
    layers: Count
    """Its blocks."""
    heads: Count
    """Heads of its linear attention."""
    cross_heads: Count
    """Heads of its attention to z."""
    ffn_ratio: Positive
    """Its hidden layers' width over its own."""
    positions: bool
    """Whether patches are told their places. SANA's convolutions find out by themselves."""
    tokens: Count
    """Tokens that z is projected to, which the transformer attends to."""
    token_width: Count
    """Their width."""
    images: CountOrZero
    """Pairs to train with, at most, spread over all of them; 0: all."""
    p_drop: Share
    """Share of the examples without their z, for guidance."""
    z_noise: NotNegative
    """Length of the noise that is added to z while training: sampled features miss real ones by some."""
    shift: Positive
    """Of the noise levels, while training and decoding: above 1 towards noise, as large images need."""
    measured: CountOrZero
    """Images of each benchmark that fidelity is measured on, at most; 0: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for heads in ("heads", "cross_heads"):
            require(
                self.width % getattr(self, heads) == 0,
                f"decoder.width: {self.width} is no multiple of {heads} {getattr(self, heads)}",
            )
        side = self.patch_size * (32 if self.checkpoint else 1)
        require(self.image_size % side == 0, f"decoder.image_size: {self.image_size} is no multiple of {side}, a patch")


@dataclass(kw_only=True)
class ImagineParams(Section):
    """`imagine`: how features are decoded, and what of them the report shows."""

    section: ClassVar[str] = "imagine"

    solver_steps: Count
    """Euler steps from noise to an image."""
    guidance_scale: NotNegative
    """How far the velocity is moved away from what it is without z; 1: not at all."""
    batch_size: Count
    """Images decoded at once."""
    queries: CountOrZero
    """Queries of each benchmark whose features the report decodes; 0: none."""

"""`prior` and `control`: Fusion-Diff's two training stages. Their sizes are checked where the models are built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pipeline.config.data import WebPairs
from pipeline.config.ranges import Count, InnerShare, Seed, Share
from pipeline.config.section import Section
from pipeline.config.speed import Speed
from pipeline.config.training import OptimiserParams

Prediction = Literal["epsilon", "v_prediction", "sample"]
ControlSignal = Literal["fused", "fused_description"]


@dataclass(kw_only=True)
class DiffusionParams(Section):
    """`prior.diffusion`: the forward process, and what the prior predicts of it."""

    section: ClassVar[str] = "prior.diffusion"

    train_steps: Count
    """T: steps of the forward process."""
    beta_start: InnerShare
    """The first step's variance."""
    beta_end: InnerShare
    """The last step's variance."""
    beta_schedule: str
    """How variances go from one to the other, by diffusers' names."""
    prediction: Prediction
    """epsilon (the paper), v_prediction, or sample: see `Diffusion.target`."""
    scale_by_sqrt_dim: bool
    """Diffuse sqrt(d) z, whose standard deviation per dimension is one."""


@dataclass(kw_only=True)
class PriorDataParams(Section):
    """`prior.data`: the pairs that Stage 1 learns from: every image with its long caption, or else its short ones."""

    section: ClassVar[str] = "prior.data"

    sources: list[WebPairs]
    """Sources of web pairs, of those in `data.web.pairs`; none: all of them."""
    short_sources: list[WebPairs]
    """Sources of which some images train with their short captions beside the long one."""
    short_share: Share
    """The share of their images, in [0, 1], that do. Which ones depends on the image's id and on `seed` only."""
    seed: Seed
    """Chooses them."""


@dataclass(kw_only=True)
class PriorParams(OptimiserParams, Speed):
    """`prior`: the DiT prior, Stage 1."""

    section: ClassVar[str] = "prior"

    channels: Count
    """Channels of the latent image that the projector maps an embedding to."""
    grid: Count
    """Height and width of the latent image."""
    patch_size: Count
    """Height and width of a patch of it, which becomes one token."""
    width: Count
    """D: the transformer's width."""
    heads: Count
    """Attention heads of a block."""
    depth: Count
    """Blocks in all: the first half is the encoder, the second the decoder."""
    ffn_ratio: Count
    """Width of a block's hidden layer, in multiples of D."""
    time_frequencies: Count
    """Width of the sinusoidal embedding of a step."""
    p_cfg: Share
    """Share of the texts that are dropped, for classifier-free guidance."""
    diffusion: DiffusionParams
    data: PriorDataParams


@dataclass(kw_only=True)
class ControlParams(OptimiserParams, Speed):
    """`control`: the Control-Adapter, Stage 2. Its sizes are the prior's."""

    section: ClassVar[str] = "control"

    p_cfg: Share
    """As `prior.p_cfg`."""
    signal: ControlSignal
    """What steers. fused (the paper): z_r,delta. fused_description: that and the described target's text embedding."""

"""`diffcomp`: DiffComp's fine-tuning and its ablations. One section is one trained variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pipeline.config.data import WebPairs
from pipeline.config.patch_grid import patch_grid, require_tiling
from pipeline.config.ranges import Count, CountOrZero, Positive, PositiveShare, Seed, Share
from pipeline.config.section import Section, require
from pipeline.config.training import OptimiserParams

Grouping = Literal["grid", "kmeans"]
CompositionText = Literal["caption", "difference"]
Masking = Literal["phrase", "random", "crop", "cam"]
MaskModel = Literal["straight_through", "hard", "sigmoid", "gumbel"]
Granularity = Literal["noun", "phrase", "sentence"]
Fill = Literal["nothing", "relative"]


@dataclass(kw_only=True)
class DiffCompDataParams(Section):
    """`diffcomp.data`: the pairs that DiffComp is trained on, of those with a short caption."""

    section: ClassVar[str] = "diffcomp.data"

    sources: list[WebPairs]
    """Sources of web pairs, of those in `data.web.pairs`; none: all of them."""
    share: PositiveShare
    """Share of their pairs, in (0, 1]. Which ones depends on the pair's id and on `seed` only."""
    seed: Seed
    """Chooses them."""


@dataclass(kw_only=True)
class DiffCompParams(OptimiserParams):
    """`diffcomp`: what a trained variant is. Tables are those of the paper's supplement."""

    section: ClassVar[str] = "diffcomp"

    backbone: str
    """A local open_clip folder, or an open_clip or transformers name for the paper's three."""
    pretrained: str
    """open_clip's tag of the weights, or a BLIP name's revision; empty for a local folder."""
    image_size: CountOrZero
    """Side of the square that the backbone sees, in pixels; 0: its checkpoint's own. For another one, the positions of
    its patches are interpolated."""
    image_layers: CountOrZero
    """The last so many visual blocks are trained, the others frozen."""
    text_layers: CountOrZero
    """The last so many text blocks are trained, the others frozen."""
    css: bool
    """Contextual semantic super-patches; false: plain patches."""
    psm: bool
    """Phrase-guided selective masking; false: random masks."""
    dac: bool
    """Difference-aware composition; false: one linear interpolation."""
    super_patch: Count
    """S: patches on a super-patch's side."""
    grouping: Grouping
    """How patches form super-patches (Table 9)."""
    local_blocks: CountOrZero
    """k: the last k visual blocks run on each super-patch alone."""
    text: CompositionText
    """Composition text in training: the caption (the paper's), or what it says and the relative's does not (which
    needs `fill: relative`)."""
    carriers: Share
    """Share of composition texts, in [0, 1], that stand among random English words (`pipeline.text.carriers`)."""
    masking: Masking
    """phrase (PSM), random, crop, or cam (Table 10). `psm: false` means random."""
    mask_model: MaskModel
    """How a mask is drawn from its probabilities (Table 10)."""
    granularity: Granularity
    """What guides the masks: a caption's nouns, its noun, verb and prepositional phrases, or the whole of it."""
    fill: Fill
    """What a masked super-patch shows in training: nothing (the attention does not read it) or the patches of a
    relative (`pipeline.diffcomp.relatives`)."""
    relatives: Count
    """An image's relative is drawn from this many nearest ones."""
    augment: bool
    """Vary training images (`pipeline.encoders.augment`), for a backbone that has seen them before."""
    data: DiffCompDataParams
    eta: Share
    """The share of super-patches that is masked, in [0, 1]."""
    saliency_temperature: Positive
    """Of the softmax over a caption's phrases."""
    gamma: Positive
    """Slope of the masking probabilities sigmoid(gamma z + b), before training: it is learned."""
    gumbel_start: Positive
    """The Gumbel-softmax's temperature at first."""
    gumbel_end: Positive
    """Its temperature from the middle of the training on; it falls linearly."""
    lambda_base: Share
    """The text's weight in the global part of a composition, and the upper bound of it in the local ones."""
    lambda_query: Share
    """`lambda_base` at inference, where it should be another one; 0 keeps it."""
    phi: Share
    """Weight of the local parts of a composition, in [0, 1]."""
    backbone_share: Share
    """Share of the untouched backbone in the fine-tuned weights, in [0, 1] (`pipeline.diffcomp.tuning`)."""
    gradient_checkpointing: bool
    """Recompute activations in the backward pass: slower, with less memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        alone = self.text == "difference" and self.fill != "relative"
        require(not alone, "diffcomp.text: difference needs diffcomp.fill: relative")

    def check_grid(self) -> None:
        """Check S against the backbone's patch grid, as far as its configuration is at hand.

        Raises:
            ParameterError: S does not divide the grid.
        """
        grid = patch_grid(self.backbone, self.image_size) if self.css else None
        if grid is not None:
            require_tiling(self.super_patch, grid)

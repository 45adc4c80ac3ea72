"""`diffcomp`: DiffComp's fine-tuning and its ablations. One section is one trained variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pipeline.config.patch_grid import patch_grid, require_tiling
from pipeline.config.ranges import Count, CountOrZero, NotNegative, Positive, Share
from pipeline.config.training import OptimiserParams

Grouping = Literal["grid", "kmeans"]
CompositionText = Literal["caption", "phrase", "mixed"]
Masking = Literal["phrase", "random", "crop", "cam"]
MaskModel = Literal["straight_through", "hard", "sigmoid", "gumbel"]
Granularity = Literal["noun", "phrase", "sentence"]
Fill = Literal["token", "relative"]
AlphaForm = Literal["sigmoid", "clip"]


@dataclass(kw_only=True)
class DiffCompParams(OptimiserParams):
    """`diffcomp`: what a trained variant is. Table numbers are those of the paper's supplement."""

    section: ClassVar[str] = "diffcomp"

    backbone: str
    """A local open_clip folder, or an open_clip or transformers name for the paper's three."""
    pretrained: str
    """open_clip's tag of the weights; empty for a local folder."""
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
    """Composition text in training: caption (the paper), phrase, or mixed. Where relatives fill, a phrase is what the
    caption says and the relative's does not."""
    carriers: Share
    """Share of composition texts, in [0, 1], that stand among random English words (`pipeline.text.carriers`)."""
    masking: Masking
    """phrase (PSM), random, crop, or cam (Table 10). `psm: false` means random."""
    mask_model: MaskModel
    """How a mask is drawn from its probabilities (Table 10)."""
    granularity: Granularity
    """What guides the masks: a caption's nouns, its noun phrases, or the whole of it."""
    fill: Fill
    """What a masked super-patch shows in training: token (the learned mask token) or relative
    (`pipeline.diffcomp.relatives`)."""
    relatives: Count
    """An image's relative is drawn from this many nearest ones."""
    augment: bool
    """Vary training images (`pipeline.encoders.augment`), for a backbone that has seen them before."""
    rho: Share
    """The share of super-patches that is masked, in [0, 1]."""
    tau_mask: Positive
    """Temperature of the masking probabilities."""
    alpha_base: Share
    """The text's weight in a composition before differences move it, in [0, 1]."""
    alpha_query: Share
    """`alpha_base` at inference, where it should be another one; 0 keeps it."""
    alpha_form: AlphaForm
    """sigmoid of the standardised discrepancy, or clip of the raw one."""
    kappa: Positive
    """How strongly the discrepancy moves alpha, before training: it is learned."""
    lam: Share
    """lambda: weight of the local composition, in [0, 1]."""
    backbone_share: Share
    """Share of the untouched backbone in the fine-tuned weights, in [0, 1] (`pipeline.diffcomp.tuning`)."""
    w_align: NotNegative
    """Weight of the loss between images and their captions."""
    w_ratio: NotNegative
    """Weight of the loss that keeps the masked share at rho."""
    gradient_checkpointing: bool
    """Recompute activations in the backward pass: slower, with less memory."""

    def check_grid(self) -> None:
        """Check S against the backbone's patch grid, as far as its configuration is at hand.

        Raises:
            ParameterError: S does not divide the grid.
        """
        grid = patch_grid(self.backbone) if self.css else None
        if grid is not None:
            require_tiling(self.super_patch, grid)

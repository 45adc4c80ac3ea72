"""`backbones`: the small models of the embedded default, trained by the frozen stage `backbones`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pipeline.config.ranges import Count, Share, ShareBelowOne
from pipeline.config.section import Section, require
from pipeline.config.training import OptimiserParams


@dataclass(kw_only=True)
class SmallMllmParams(OptimiserParams):
    """`backbones.mllm`: f_M of the embedded default, a small Qwen2.5-VL."""

    section: ClassVar[str] = "backbones.mllm"

    vocabulary: Count
    """Tokens of the vocabulary that is trained on the captions."""
    width: Count
    """Width of the language model."""
    layers: Count
    """Blocks of the language model."""
    heads: Count
    """Attention heads of its blocks."""
    ffn: Count
    """Width of its hidden layers."""
    vision_width: Count
    """Width of the vision tower."""
    vision_layers: Count
    """Blocks of the vision tower."""
    vision_heads: Count
    """Attention heads of its blocks."""
    vision_ffn: Count
    """Width of its hidden layers."""
    patch_size: Count
    """Side of a patch, in pixels."""
    drop_path: ShareBelowOne
    """Stochastic depth of the vision tower: the last block's share of dropped branches."""
    instruction_dropout: Share
    """Share of instruction tokens replaced at random, so that wordings never seen still work."""


@dataclass(kw_only=True)
class SmallClipParams(OptimiserParams):
    """`backbones.clip`: the dual encoder that DiffComp starts from in the embedded default."""

    section: ClassVar[str] = "backbones.clip"

    embed_dim: Count
    """Dimension of the joint space."""
    image_size: Count
    """Side of an image, in pixels."""
    patch_size: Count
    """Side of a patch, in pixels."""
    vision_width: Count
    """Width of the image tower."""
    vision_layers: Count
    """Blocks of the image tower."""
    text_width: Count
    """Width of the text tower."""
    text_layers: Count
    """Blocks of the text tower."""
    text_heads: Count
    """Attention heads of its blocks."""
    context_length: Count
    """Tokens of a text, at most."""


@dataclass(kw_only=True)
class SmallRerankerParams(OptimiserParams):
    """`backbones.reranker`: the small f_M, taught to verify answers."""

    section: ClassVar[str] = "backbones.reranker"

    candidates: Count
    """Images that are verified for a question of a batch: one that is right, and near misses."""
    vision: bool
    """Whether the visual tower is trained, too."""
    instruction_dropout: Share
    """Share of the modification's tokens replaced at random, so that wordings never seen still work."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.candidates > 1, "backbones.reranker.candidates: 1 leaves no near miss")


Team = Literal["noto", "openmoji", "fluent_3d", "fluent_flat", "emojione", "noto_blobs"]


@dataclass(kw_only=True)
class BackbonesParams(Section):
    """`backbones`: all of them."""

    section: ClassVar[str] = "backbones"

    teams: list[Team]
    """The artists whose images they see. The pipeline's own pairs are those of the first two in any case."""

    mllm: SmallMllmParams
    clip: SmallClipParams
    reranker: SmallRerankerParams

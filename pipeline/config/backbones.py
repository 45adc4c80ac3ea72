"""`backbones`: the two small models of the embedded default, trained by the frozen stage `backbones`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pipeline.config.section import Section
from pipeline.config.training import OptimiserParams


@dataclass(kw_only=True)
class SmallMllmParams(OptimiserParams):
    """`backbones.mllm`: f_M of the embedded default, a small Qwen2.5-VL."""

    section: ClassVar[str] = "backbones.mllm"

    vocabulary: int
    """Tokens of the vocabulary that is trained on the captions."""
    width: int
    """Width of the language model."""
    layers: int
    """Blocks of the language model."""
    heads: int
    """Attention heads of its blocks."""
    ffn: int
    """Width of its hidden layers."""
    vision_width: int
    """Width of the vision tower."""
    vision_layers: int
    """Blocks of the vision tower."""
    vision_heads: int
    """Attention heads of its blocks."""
    vision_ffn: int
    """Width of its hidden layers."""
    patch_size: int
    """Side of a patch, in pixels."""
    drop_path: float
    """Stochastic depth of the vision tower: the last block's share of dropped branches."""
    instruction_dropout: float
    """Share of instruction tokens replaced at random, so that wordings never seen still work."""


@dataclass(kw_only=True)
class SmallClipParams(OptimiserParams):
    """`backbones.clip`: the dual encoder that DiffComp starts from in the embedded default."""

    section: ClassVar[str] = "backbones.clip"

    embed_dim: int
    """Dimension of the joint space."""
    image_size: int
    """Side of an image, in pixels."""
    patch_size: int
    """Side of a patch, in pixels."""
    vision_width: int
    """Width of the image tower."""
    vision_layers: int
    """Blocks of the image tower."""
    text_width: int
    """Width of the text tower."""
    text_layers: int
    """Blocks of the text tower."""
    text_heads: int
    """Attention heads of its blocks."""
    context_length: int
    """Tokens of a text, at most."""


Team = Literal["noto", "openmoji", "fluent_3d", "fluent_flat", "emojione", "noto_blobs"]


@dataclass(kw_only=True)
class BackbonesParams(Section):
    """`backbones`: both of them."""

    section: ClassVar[str] = "backbones"

    teams: list[Team]
    """The artists whose images they see. The pipeline's own pairs are those of the first two in any case."""

    mllm: SmallMllmParams
    clip: SmallClipParams

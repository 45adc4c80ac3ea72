"""`peers`: the methods that the papers compare with, trained over the backbone of `diffcomp`. One section a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pipeline.config.ranges import Count, NotNegative, Positive, ShareBelowOne
from pipeline.config.section import Section, require
from pipeline.config.training import OptimiserParams

PeerName = Literal["pic2word", "searle", "lincir"]
Activation = Literal["relu", "gelu"]
PLACEHOLDER = "*"
"""Where a prompt has the pseudo-word."""


@dataclass(kw_only=True)
class MapperParams(OptimiserParams):
    """What the pseudo-word methods share: a perceptron from a feature to a word, and prompts around that word."""

    layers: Count
    """Linear layers."""
    hidden: Count
    """Width between them."""
    activation: Activation
    """Between them."""
    dropout: ShareBelowOne
    """After each activation."""
    prompt: str
    """A text that stands for an image alone, with * for its word."""
    query: str
    """A text that stands for a query, with * for the reference's word and {modification}."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, text in (("prompt", self.prompt), ("query", self.query)):
            require(text.count(PLACEHOLDER) == 1, f"{self.section}.{name}: {text!r} needs one {PLACEHOLDER}")
        require("{modification}" in self.query, f"{self.section}.query: {self.query!r} lacks {{modification}}")


@dataclass(kw_only=True)
class Pic2WordParams(MapperParams):
    """`peers.pic2word`: an image's word, learned by the contrastive loss of image and prompt."""

    section: ClassVar[str] = "peers.pic2word"

    temperature: Positive
    """Of that loss."""


@dataclass(kw_only=True)
class InversionParams(OptimiserParams):
    """`peers.searle.inversion`: words optimised for single images. A step moves those of `batch_size` images, all of
    which are inverted at once."""

    section: ClassVar[str] = "peers.searle.inversion"

    concepts: Count
    """Concepts of an image, from which a step draws one."""
    concept_weight: NotNegative
    """Weight of the loss that keeps words near concepts, beside the image's loss of weight 1."""


@dataclass(kw_only=True)
class SearleParams(MapperParams):
    """`peers.searle`: words found by optimisation, then distilled into a mapper."""

    section: ClassVar[str] = "peers.searle"

    inversion: InversionParams
    temperature: Positive
    """Of the contrastive loss between a mapper's words and the optimised ones."""
    concept_weight: NotNegative
    """Weight of the concepts' loss, beside the distillation's of weight 1."""


@dataclass(kw_only=True)
class LinCirParams(MapperParams):
    """`peers.lincir`: a caption's word, learned from captions alone."""

    section: ClassVar[str] = "peers.lincir"

    noise: NotNegative
    """Bound of the noise's deviation in every dimension of a unit-length feature. It closes the gap between captions,
    which the mapper is trained on, and images."""


@dataclass(kw_only=True)
class PeersParams(Section):
    """`peers`: which of them are trained, and how."""

    section: ClassVar[str] = "peers"

    train: list[PeerName]
    """The peers that are trained and ranked; none by default."""
    pic2word: Pic2WordParams
    searle: SearleParams
    lincir: LinCirParams

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(set(self.train)) == len(self.train), f"peers.train: {self.train} names a method twice")

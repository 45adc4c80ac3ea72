"""`peers`: the methods that the papers compare with, trained over the backbone of `diffcomp`. One section a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pipeline.config.fusion_diff import DiffusionParams
from pipeline.config.ranges import Count, CountOrZero, InnerShare, NotNegative, Positive, Share, ShareBelowOne
from pipeline.config.section import Section, require
from pipeline.config.training import OptimiserParams

PeerName = Literal["pic2word", "searle", "lincir", "slerp_tat", "pli", "compodiff", "flowcir"]
TripletTable = Literal["sampled", "all"]
DescribedName = Literal["ldre", "osrcir"]
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
class TunedParams(OptimiserParams):
    """What the peers share that tune the backbone."""

    image_layers: CountOrZero
    """Last blocks of the image tower that are trained, with its final norm and projection."""
    gradient_checkpointing: bool
    """Compute the image tower's activations again instead of keeping them."""
    augment: bool
    """Vary the training images."""
    text_weight: Share
    """The text's weight in a query: its share of the arc from image to text."""


@dataclass(kw_only=True)
class SlerpTatParams(TunedParams):
    """`peers.slerp_tat`: the image tower is tuned towards the texts."""

    section: ClassVar[str] = "peers.slerp_tat"


@dataclass(kw_only=True)
class PliParams(TunedParams):
    """`peers.pli`: a masked image and its caption are to find the whole image."""

    section: ClassVar[str] = "peers.pli"

    text_layers: CountOrZero
    """The same of the text tower."""
    masked: InnerShare
    """The share of the patches that is hidden."""
    masked_text_weight: Share
    """The caption's weight beside the masked image while training."""


@dataclass(kw_only=True)
class GenerativeParams(OptimiserParams):
    """What the peers share that generate the target's feature: the network's sizes, and the edits it learns from."""

    triplets: TripletTable
    """`sampled`: those of `data.triplets` that Fusion-Diff's Control-Adapter learns from; `all`: every prepared one."""
    width: Count
    heads: Count
    depth: Count
    """Blocks; even."""
    ffn_ratio: Count
    """Width of a block's perceptron, in widths."""
    time_frequencies: Count
    """Features of a timestep; even."""


@dataclass(kw_only=True)
class CompoDiffDiffusionParams(DiffusionParams):
    """`peers.compodiff.diffusion`: as `prior.diffusion`."""

    section: ClassVar[str] = "peers.compodiff.diffusion"


@dataclass(kw_only=True)
class CompoDiffParams(GenerativeParams):
    """`peers.compodiff`: the target's feature is denoised under text and reference."""

    section: ClassVar[str] = "peers.compodiff"

    diffusion: CompoDiffDiffusionParams
    dropped: Share
    """Share of the rows without a text, of those without a reference, and of those without both: at most a third."""
    solver_steps: Count
    """Steps of the solver."""
    text_guidance: NotNegative
    """w_T. 1: none."""
    image_guidance: NotNegative
    """w_I. 1: none."""
    temperature: NotNegative
    """Scales the starting noise. 1: the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(3 * self.dropped <= 1, f"{self.section}.dropped: {self.dropped} is above a third")


@dataclass(kw_only=True)
class FlowCirParams(GenerativeParams):
    """`peers.flowcir`: a straight flow from the composed query to the target."""

    section: ClassVar[str] = "peers.flowcir"

    text_weight: Share
    """The text's weight where the flow starts: its share of the arc from image to text."""
    flow_steps: Count
    """Euler's steps at inference."""


@dataclass(kw_only=True)
class LdreParams(Section):
    """`peers.ldre`: an ensemble of edited captions. The edit is that of `retrieve.edit_prompt`."""

    section: ClassVar[str] = "peers.ldre"

    captions: Count
    """K: captions of a reference, each of which is edited."""
    temperature: Positive
    """Of the softmax over how well the captions fit the reference."""


@dataclass(kw_only=True)
class OsrcirParams(Section):
    """`peers.osrcir`: one reasoning step over reference and modification."""

    section: ClassVar[str] = "peers.osrcir"

    prompt: str
    """Asks f_M to reason about the image and {modification}, and to end with a description of the target. Empty, for
    an f_M that follows no such prompt: its plain target description takes the answer's place."""
    answer: str
    """What stands before the description in the answer."""
    max_new_tokens: Count
    """Bound on an answer's tokens, its reasoning included."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt:
            require("{modification}" in self.prompt, f"{self.section}.prompt: {self.prompt!r} lacks {{modification}}")
            require(bool(self.answer.strip()), f"{self.section}.answer is empty: nothing would end the reasoning")


@dataclass(kw_only=True)
class PeersParams(Section):
    """`peers`: which of them are trained, and how."""

    section: ClassVar[str] = "peers"

    train: list[PeerName]
    """The peers that are trained and ranked; none by default."""
    described: list[DescribedName]
    """The peers that need no training, only an f_M that describes; none by default."""
    ldre: LdreParams
    osrcir: OsrcirParams
    pic2word: Pic2WordParams
    searle: SearleParams
    lincir: LinCirParams
    slerp_tat: SlerpTatParams
    pli: PliParams
    compodiff: CompoDiffParams
    flowcir: FlowCirParams

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, methods in (("train", self.train), ("described", self.described)):
            require(len(set(methods)) == len(methods), f"peers.{name}: {methods} names a method twice")

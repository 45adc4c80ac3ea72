"""`encoder`, `text_encoder` and `captions`: the multimodal LLM, the text encoder, and the texts of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pipeline.config.ranges import Count, CountOrZero, Share, ShareBelowOne
from pipeline.config.section import Section, require

Backend = Literal["transformers", "vllm"]
Dtype = Literal["float32", "bfloat16"]
Engine = Literal["local", "ray"]
TextEncoderKind = Literal["huggingface", "mllm"]
Targets = Literal["fused", "image"]


@dataclass(kw_only=True)
class EncoderParams(Section):
    """`encoder`: f_M, the multimodal LLM that embeds, captions and describes."""

    section: ClassVar[str] = "encoder"

    backend: Backend
    """The library that runs the model."""
    path: str
    """A local folder, or a hub name that `revision` pins. Empty: there is none, and no method that needs it."""
    revision: str
    """The commit of a hub name; empty for a local folder."""
    dtype: Dtype
    """The type of the weights."""
    batch_size: Count
    """Rows that are encoded at once."""
    dim: CountOrZero
    """d, the embeddings' dimension: 0 is the encoder's own width, else the leading dimensions, renormalised."""
    embed_template: str
    """The instruction-augmented input whose last token's state is the embedding."""
    chat_template: str
    """What a generated answer continues."""
    caption_prompt: str
    """The instruction for a long caption."""
    target_prompt: str
    """The instruction for a target description, of a {modification} and a {shared_concept}."""
    targets: Targets
    """What the prior learns to make. fused (the paper): f_M of an image and its text. image: f_M of the image alone, as
    galleries are embedded."""
    max_new_tokens: Count
    """Tokens of a generated answer, at most."""
    max_rejected_share: ShareBelowOne
    """Share of rows, in [0, 1), that may fail to decode before the job does; 0: the first one ends it."""
    max_side: CountOrZero
    """Side in pixels to which larger images are reduced, those of queries as well; 0: the processor's choice."""
    workers: CountOrZero
    """Threads that decode and prepare images while a batch is encoded; no result depends on it. On a GPU, vLLM adds
    as many processes."""
    vllm: dict[str, Any]
    """Further arguments of `vllm.LLM`, such as tensor_parallel_size."""
    engine: Engine
    """local: this process encodes; ray: `replicas` workers do, each with a model of its own."""
    ray_address: str
    """A running cluster; empty: Ray is started on this machine."""
    replicas: Count
    """Workers of the engine ray."""


@dataclass(kw_only=True)
class TextEncoderParams(Section):
    """`text_encoder`: E_text, the frozen text encoder whose token states condition the prior."""

    section: ClassVar[str] = "text_encoder"

    kind: TextEncoderKind
    """huggingface: a text encoder of its own, such as T5. mllm: f_M's own text branch."""
    path: str
    """An installed package that carries the weights, a local folder, or a hub name; empty for kind mllm."""
    revision: str
    """The commit of a hub name; empty otherwise."""
    dim: Count
    """Width of the token states."""
    max_tokens: Count
    """Tokens of a text, at most."""
    while_training: bool
    """Stage 1 encodes the captions as it needs them, and their token states are not stored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        named = "needs none" if self.kind == "mllm" else "needs one"
        require(
            (self.path == "") == (self.kind == "mllm"), f"text_encoder.path: {self.path!r}; kind {self.kind} {named}"
        )


@dataclass(kw_only=True)
class CaptionParams(Section):
    """`captions`: which texts the pairs carry."""

    section: ClassVar[str] = "captions"

    long_share: Share
    """Share of pairs, in [0, 1], that take the long caption (the paper's 28 : 5)."""
    spacy_model: str
    """The installed spaCy model that finds noun phrases."""
    carrier_vocabulary: str
    """Whose words may stand around a text in training: an installed package, or a folder with a vocabulary of word
    pieces."""

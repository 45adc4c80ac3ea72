"""f_M in its three uses, its jobs, the text encoder, and the texts of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, ClassVar, Literal

from pipeline.config.ranges import Count, CountOrZero, Share, ShareBelowOne
from pipeline.config.section import ParameterError, Section, require

Backend = Literal["transformers", "vllm"]
Dtype = Literal["float32", "bfloat16"]
Engine = Literal["local", "ray"]
TextEncoderKind = Literal["huggingface", "mllm"]
TextEncoderDtype = Literal["float32", "bfloat16", "fp8"]
Targets = Literal["fused", "image"]


def check_template(name: str, template: str, fields: set[str], optional: Sequence[str] = ()) -> None:
    """Raise ParameterError unless a template has all of `fields`, and no others than `optional` beside them."""
    try:
        found = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ParameterError(f"{name}: {error}") from None
    known = fields | set(optional)
    missing, unknown = fields - found, found - known
    require(not missing, f"{name}: has no {{{min(missing, default='')}}}")
    require(not unknown, f"{name}: {{{min(unknown, default='')}}} is none of {', '.join(sorted(known))}")


@dataclass(kw_only=True)
class MllmParams(Section):
    """What every section of f_M says of its model. Each falls back to the one before it, in `conf/`."""

    backend: Backend
    """The library that runs the model."""
    path: str
    """A local folder, or a hub name that `revision` pins. Empty: there is none, and no method that needs it."""
    revision: str
    """The commit of a hub name; empty for a local folder."""
    dtype: Dtype
    """The type of the weights."""
    batch_size: Count
    """Inputs that are encoded or answered at once."""
    max_side: CountOrZero
    """Side in pixels to which larger images are reduced, those of queries as well; 0: the processor's choice."""
    vllm: dict[str, Any]
    """Further arguments of `vllm.LLM`, such as tensor_parallel_size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.vllm.get("tensor_parallel_size", 1)
        whole = isinstance(size, int) and not isinstance(size, bool) and size >= 1
        require(whole, f"{self.section}.vllm.tensor_parallel_size: {size!r} is no number of GPUs")

    @property
    def gpus(self) -> int:
        """How many GPUs share the model."""
        return int(self.vllm.get("tensor_parallel_size", 1)) if self.backend == "vllm" else 1


@dataclass(kw_only=True)
class EmbedderParams(MllmParams):
    """`embedder`: f_M where it embeds images and texts."""

    section: ClassVar[str] = "embedder"

    dim: CountOrZero
    """d, the embeddings' dimension: 0 is the model's own width, else the leading dimensions, renormalised."""
    embed_template: str
    """The input whose last token's state is the embedding, of an {instruction}, an {image} and a {text}."""
    query_instruction: str
    """What the template says of a reference with its modification."""
    document_instruction: str
    """What it says of everything that is searched or learned: galleries, pairs, targets and their descriptions."""
    targets: Targets
    """What the prior learns to make. fused (the paper): f_M of an image and its text. image: f_M of the image alone, as
    galleries are embedded."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_template("embedder.embed_template", self.embed_template, {"image", "text"}, ["instruction"])


@dataclass(kw_only=True)
class GeneratorParams(MllmParams):
    """What the sections of f_M that write texts have in common."""

    chat_template: str
    """What a generated answer continues."""
    max_new_tokens: Count
    """Tokens of a generated answer, at most."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name = f"{self.section}.chat_template"
        require(self.chat_template != "", f"{name}: empty, so the model cannot be asked for a text")
        check_template(name, self.chat_template, {"image", "text"})


@dataclass(kw_only=True)
class DescriberParams(GeneratorParams):
    """`describer`: f_M where it answers queries: target descriptions, captions of references and of their edits."""

    section: ClassVar[str] = "describer"

    target_prompt: str
    """The instruction for a target description, of a {modification} and a {shared_concept}."""


@dataclass(kw_only=True)
class CaptionerParams(GeneratorParams):
    """`captioner`: f_M where it writes the long captions of the pairs."""

    section: ClassVar[str] = "captioner"

    caption_prompt: str
    """The instruction for a caption, of references too."""


@dataclass(kw_only=True)
class RerankerParams(MllmParams):
    """`reranker`: f_M where it verifies answers, or a checkpoint that was trained to."""

    section: ClassVar[str] = "reranker"

    template: str
    """The question, of a {reference}, a {modification} and a {candidate}. The candidate comes last: what stands before
    it is the same for all candidates of a query and is computed once."""
    answers: list[str]
    """Yes and no: the two tokens that may follow. Each has to be one token of the model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_template("reranker.template", self.template, {"reference", "modification", "candidate"})
        order = [field for _, field, _, _ in Formatter().parse(self.template) if field is not None]
        last = order.index("candidate") == len(order) - 1
        require(last and len(order) == 3, "reranker.template: each field once, and {candidate} after the two others")
        two = len(self.answers) == 2 and self.answers[0] != self.answers[1]
        require(two, f"reranker.answers: {self.answers} are not two answers, yes and no")


@dataclass(kw_only=True)
class JobsParams(Section):
    """`jobs`: how the jobs of f_M run. No result depends on it."""

    section: ClassVar[str] = "jobs"

    workers: CountOrZero
    """Threads that decode and prepare images while a batch is encoded; 0: the encoding thread does it. On a GPU, vLLM
    adds as many processes."""
    max_rejected_share: ShareBelowOne
    """Share of rows, in [0, 1), that may fail to decode before the job does; 0: the first one ends it."""
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
    dtype: TextEncoderDtype
    """Of kind huggingface's weights. fp8: bfloat16, and in 8 bits what a T5 multiplies on a GPU as Stage 1 trains."""
    batch_tokens: Count
    """Tokens that kind huggingface encodes at once, at most, padding included."""
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
    """Share of the images that Stage 1 learns from, in [0, 1], that take a long caption."""
    spacy_model: str
    """The installed spaCy model that finds noun phrases."""
    processes: Count
    """Processes that parse captions."""
    carrier_vocabulary: str
    """Whose words may stand around a text in training: an installed package, or a folder with a vocabulary of word
    pieces."""

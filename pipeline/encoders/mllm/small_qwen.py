"""A small Qwen2.5-VL to be trained from scratch: tokenizer, processor, model, and the folder that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from pipeline.config import SmallMllmParams
from pipeline.encoders.mllm.qwen import MERGE, SPECIAL_TOKENS, TEMPORAL


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE in Qwen's shape, with Qwen's special tokens.

    Args:
        texts: What the tokenizer should know.
        vocabulary: Bound on the number of tokens, special ones included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    no_token = cast(str, None)  # Qwen has neither an unknown token nor one that begins a text
    return Qwen2Tokenizer(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token=no_token,
        bos_token=no_token,
        additional_special_tokens=list(SPECIAL_TOKENS[3:]),
    )


def make_processor(tokenizer: PreTrainedTokenizerFast, params: SmallMllmParams, image_size: int) -> Qwen2_5_VLProcessor:
    """Tokenizer and image processor as one.

    Args:
        tokenizer: As `train_tokenizer` makes it.
        params: Holds the patch size.
        image_size: Images are resized to about this squared, in pixels, whatever they come as.
    """
    pixels = {"shortest_edge": image_size**2, "longest_edge": image_size**2}
    sizes = {"patch_size": params.patch_size, "temporal_patch_size": TEMPORAL, "merge_size": MERGE, "size": pixels}
    return Qwen2_5_VLProcessor(Qwen2VLImageProcessor(**sizes), tokenizer, Qwen2VLVideoProcessor(**sizes))


def build_model(params: SmallMllmParams, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    """A randomly initialised model of the class that the 3B, 7B and 72B models have.

    Args:
        params: The sizes.
        tokenizer: Gives the vocabulary and the special tokens' ids.
    """
    ids = {token: cast(int, tokenizer.convert_tokens_to_ids(token)) for token in SPECIAL_TOKENS}
    head = params.width // params.heads
    config = Qwen2_5_VLConfig(
        text_config={
            "model_type": "qwen2_5_vl_text",
            "vocab_size": len(tokenizer),
            "hidden_size": params.width,
            "intermediate_size": params.ffn,
            "num_hidden_layers": params.layers,
            "num_attention_heads": params.heads,
            "num_key_value_heads": params.heads,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "use_sliding_window": False,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [head // 8, 3 * head // 16, 3 * head // 16],
            },
        },
        vision_config={
            "depth": params.vision_layers,
            "hidden_size": params.vision_width,
            "intermediate_size": params.vision_ffn,
            "num_heads": params.vision_heads,
            "patch_size": params.patch_size,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": TEMPORAL,
            "out_hidden_size": params.width,
            "fullatt_block_indexes": list(range(params.vision_layers)),
            "window_size": 112,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def save_model(folder: str | Path, model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor) -> None:
    """Write a model in the layout of a hub release: config, float16 safetensors, processor and tokenizer files.

    Args:
        folder: Where to.
        model: It is in float16 afterwards.
        processor: Written with its tokenizer.
    """
    half = model.half()
    half.config.dtype = torch.float16
    half.save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)

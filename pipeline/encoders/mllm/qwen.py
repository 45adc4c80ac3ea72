"""Batched forward passes through a `Qwen2_5_VLForConditionalGeneration` whose images share one size.

`transformers` walks over the images of a batch one by one in every attention layer, which leaves a
GPU idle while a small model trains. Here images of equal size run as one batch through the same
modules and weights; `tests/encoders/mllm/test_qwen.py` holds the two to each other.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2TokenizerFast,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from pipeline.config import SmallMllmParams

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
IMAGE_SLOT = "<|vision_start|><|image_pad|><|vision_end|>"
MERGE = 2
TEMPORAL = 2


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE in Qwen's shape over `texts`, with Qwen's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

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
    return Qwen2TokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token=None,
        bos_token=None,
        additional_special_tokens=list(SPECIAL_TOKENS[3:]),
    )


def make_processor(tokenizer: PreTrainedTokenizerFast, params: SmallMllmParams, image_size: int) -> Qwen2_5_VLProcessor:
    """Images are resized to `image_size` squared pixels whatever they come as."""
    pixels = {"shortest_edge": image_size**2, "longest_edge": image_size**2}
    sizes = {"patch_size": params.patch_size, "temporal_patch_size": TEMPORAL, "merge_size": MERGE, "size": pixels}
    return Qwen2_5_VLProcessor(Qwen2VLImageProcessor(**sizes), tokenizer, Qwen2VLVideoProcessor(**sizes))


def build_model(params: SmallMllmParams, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    """A randomly initialised model of the class that the 3B, 7B and 72B models have."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
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
    """In the layout of a hub release: config, float16 safetensors, processor and tokenizer files."""
    half = model.to(torch.float16)
    half.config.dtype = torch.float16
    half.save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)


def patchify(pixels: Tensor, patch: int) -> Tensor:
    """Normalised images [B, 3, H, W] -> [B, patches, 3 * TEMPORAL * patch * patch] in the processor's order.

    The order is Qwen's: merge windows first, then the 2 x 2 patches inside each; a still image is
    repeated over the temporal patch.
    """
    repeated = pixels.unsqueeze(1).expand(-1, TEMPORAL, -1, -1, -1)
    return rearrange(
        repeated, "b t c (h mh ph) (w mw pw) -> b (h w mh mw) (c t ph pw)", mh=MERGE, mw=MERGE, ph=patch, pw=patch
    )


def visual_tokens(
    model: Qwen2_5_VLForConditionalGeneration,
    pixels: Tensor,
    drop_path: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Images [B, 3, H, W], normalised -> language-model tokens [B, patches / 4, width].

    drop_path: share of images that skip a residual branch (stochastic depth, in training only).
    """
    visual = model.model.visual
    batch, grid = len(pixels), pixels.shape[-1] // visual.patch_size
    flat = patchify(pixels, visual.patch_size)  # [B, P, C]
    patches = flat.shape[1]
    kernel = visual.patch_embed.proj.weight.flatten(1)  # a convolution whose stride is its kernel is one product
    hidden = F.linear(flat.to(kernel.dtype), kernel)  # [B, P, D]
    cos, sin = _rotary(visual, grid, pixels.device)  # [P, head_dim]
    for block in visual.blocks:
        attention, heads = block.attn, block.attn.num_heads
        query, key, value = rearrange(
            attention.qkv(_rms_norm(block.norm1, hidden)), "b p (three h d) -> three b h p d", three=3, h=heads
        )
        query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
        mixed = F.scaled_dot_product_attention(query, key, value)  # [B, h, P, d]
        hidden = hidden + _drop_path(attention.proj(rearrange(mixed, "b h p d -> b p (h d)")), drop_path, generator)
        hidden = hidden + _drop_path(block.mlp(_rms_norm(block.norm2, hidden)), drop_path, generator)
    return visual.merger(hidden.flatten(0, 1)).view(batch, patches // MERGE**2, -1)


def _drop_path(branch: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Zero the branch [B, P, D] of a random share of the batch and scale the rest up."""
    if not share:
        return branch
    kept = torch.rand((len(branch), 1, 1), generator=generator, device=branch.device) >= share
    return branch * kept / (1.0 - share)


def _rotary(visual: torch.nn.Module, grid: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Axial rotary angles' cosine and sine [patches, head_dim], in the processor's patch order."""
    dim = visual.config.hidden_size // visual.config.num_heads // 2
    frequencies = 10_000.0 ** -(torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim)
    rows = torch.arange(grid, device=device)
    positions = torch.stack(torch.meshgrid(rows, rows, indexing="ij"), -1)  # [h, w, 2]
    positions = rearrange(positions, "(h mh) (w mw) two -> (h w mh mw) two", mh=MERGE, mw=MERGE)
    angles = (positions.unsqueeze(-1) * frequencies).flatten(1)  # [P, dim]
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions in float32, as `transformers` applies them. states [B, h, P, d]."""
    first, second = states.float().chunk(2, dim=-1)
    rotated = torch.cat((-second, first), dim=-1)
    return (states.float() * cos + rotated * sin).to(states.dtype)


def position_ids(prefix: int, grid: int, length: int, device: torch.device) -> Tensor:
    """M-RoPE positions [3, length] of: `prefix` text tokens, grid x grid visual tokens, text. grid 0: text only."""
    text = torch.arange(length, device=device)
    if grid == 0:
        return text.expand(3, -1)
    side = torch.arange(grid, device=device)
    rows, columns = torch.meshgrid(side, side, indexing="ij")
    image = torch.stack((torch.zeros_like(rows), rows, columns)).flatten(1) + prefix  # [3, grid * grid]
    before = torch.arange(prefix, device=device).expand(3, -1)
    after = torch.arange(length - prefix - grid * grid, device=device).expand(3, -1) + prefix + grid
    return torch.cat((before, image, after), dim=1)


def language_states(
    model: Qwen2_5_VLForConditionalGeneration, ids: Tensor, visual: Tensor | None, prefix: int
) -> Tensor:
    """Final hidden states [B, T, width] of right-padded sequences; those of padding are meaningless.

    ids [B, T]: with `visual` [B, n, width], tokens prefix .. prefix + n are its slots.
    """
    embedded = model.model.language_model.embed_tokens(ids)
    grid = 0
    if visual is not None:
        count = visual.shape[1]
        grid = int(count**0.5)
        embedded = torch.cat((embedded[:, :prefix], visual.to(embedded.dtype), embedded[:, prefix + count :]), dim=1)
    text = model.model.language_model
    positions = position_ids(prefix, grid, ids.shape[1], ids.device)
    rope = model.config.text_config.rope_parameters
    cos, sin = _multimodal_rotary(
        positions, text.layers[0].self_attn.head_dim, rope["rope_theta"], rope["mrope_section"]
    )
    hidden = embedded
    for layer in text.layers:
        attention = layer.self_attn
        normed = _rms_norm(layer.input_layernorm, hidden)
        query, key, value = (
            rearrange(linear(normed), "b t (h d) -> b h t d", d=attention.head_dim)
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
        # Padding is on the right, so causality alone keeps it out of every real token's sight.
        mixed = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=query.shape[1] != key.shape[1]
        )
        hidden = hidden + attention.o_proj(rearrange(mixed, "b h t d -> b t (h d)"))
        hidden = hidden + layer.mlp(_rms_norm(layer.post_attention_layernorm, hidden))
    return _rms_norm(text.norm, hidden)


def _multimodal_rotary(positions: Tensor, head_dim: int, theta: float, sections: list[int]) -> tuple[Tensor, Tensor]:
    """M-RoPE: each section of the frequencies turns with one of the three position axes. [3, T] -> cos, sin [T, head_dim]"""
    frequencies = theta ** -(torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim)
    axis = torch.repeat_interleave(torch.arange(3), torch.tensor(sections)).to(positions.device)  # [head_dim / 2]
    angles = positions[axis].T * frequencies  # [T, head_dim / 2]
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def _rms_norm(module: torch.nn.Module, hidden: Tensor) -> Tensor:
    """The fused kernel with the module's weight; as in `transformers` the product is in the input's precision."""
    return F.rms_norm(hidden, module.weight.shape, module.weight.to(hidden.dtype), module.variance_epsilon)

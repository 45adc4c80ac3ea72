"""Batched forward passes through a `Qwen2_5_VLForConditionalGeneration` whose images share one size.

`transformers` walks over the images of a batch one by one in every attention layer, which leaves a
GPU idle while a small model trains. Here images of equal size run as one batch through the same
modules and weights. `tests/encoders/mllm/test_qwen.py` checks the two against each other.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLTextConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLDecoderLayer,
    Qwen2_5_VLRMSNorm,
    Qwen2_5_VLVisionBlock,
)

from pipeline.encoders.mllm.qwen import MERGE, TEMPORAL


def patchify(pixels: Tensor, patch: int) -> Tensor:
    """Cut images into patches in the processor's order: merge windows first, then the 2 x 2 patches inside each.

    Args:
        pixels: Normalised images [B, 3, H, W].
        patch: Side of a patch, in pixels.

    Returns:
        [B, P, 3 * TEMPORAL * patch * patch]; a still image is repeated over the temporal patch.
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
    """The visual tower over pixels; see `patch_tokens`.

    Args:
        model: The model.
        pixels: Normalised square images of one size [B, 3, H, W].
        drop_path: Share of images that skip a residual branch (stochastic depth, in training only).
        generator: Draws which; on the images' device.

    Returns:
        Tokens of the language model [B, P / 4, width], for P patches an image.
    """
    return patch_tokens(model, patchify(pixels, model.model.visual.patch_size), drop_path, generator)


def patch_tokens(
    model: Qwen2_5_VLForConditionalGeneration,
    patches: Tensor,
    drop_path: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The visual tower over patches.

    Args:
        model: The model.
        patches: Those of square images of one size [B, P, C], in the processor's order. All are to lie in one attention
            window (`one_window`).
        drop_path: Share of images that skip a residual branch.
        generator: Draws which.

    Returns:
        Tokens of the language model [B, P / 4, width].
    """
    visual = model.model.visual
    batch, count = patches.shape[:2]
    kernel = visual.patch_embed.proj.weight.flatten(1)  # a convolution whose stride is its kernel is one product
    hidden = F.linear(patches.to(kernel.dtype), kernel)  # [B, P, D]
    side = math.isqrt(count)
    cos, sin = rotary(visual, patch_places(side, side).to(patches.device))  # [P, head_dim]
    for module in visual.blocks:
        block = cast(Qwen2_5_VLVisionBlock, module)
        attention, heads = block.attn, block.attn.num_heads
        query, key, value = rearrange(
            attention.qkv(rms_norm(block.norm1, hidden)), "b p (three h d) -> three b h p d", three=3, h=heads
        )
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        mixed = F.scaled_dot_product_attention(query, key, value)  # [B, h, P, d]
        hidden = hidden + _drop_path(attention.proj(rearrange(mixed, "b h p d -> b p (h d)")), drop_path, generator)
        hidden = hidden + _drop_path(block.mlp(rms_norm(block.norm2, hidden)), drop_path, generator)
    return visual.merger(hidden.flatten(0, 1)).view(batch, count // MERGE**2, -1)


def one_window(model: Qwen2_5_VLForConditionalGeneration, side: int) -> bool:
    """Whether images of `side` patches a side lie in one attention window of the visual tower."""
    config = model.model.visual.config
    everywhere = set(config.fullatt_block_indexes) >= set(range(config.depth))
    return everywhere or side * config.patch_size <= config.window_size


def _drop_path(branch: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Zero the branch [B, P, D] of a random share of the batch and scale the rest up."""
    if not share:
        return branch
    kept = torch.rand((len(branch), 1, 1), generator=generator, device=branch.device) >= share
    return branch * kept / (1.0 - share)


def patch_places(rows: int, columns: int) -> Tensor:
    """Row and column of each patch of an image [rows * columns, 2], in the processor's order."""
    places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1)
    return rearrange(places, "(h mh) (w mw) two -> (h w mh mw) two", mh=MERGE, mw=MERGE)


def rotary(visual: Qwen2_5_VisionTransformerPretrainedModel, places: Tensor) -> tuple[Tensor, Tensor]:
    """Axial rotary angles' cosine and sine [P, head_dim] of patches at rows and columns [P, 2]."""
    dim = visual.config.hidden_size // visual.config.num_heads // 2
    frequencies = 10_000.0 ** -(torch.arange(0, dim, 2, device=places.device, dtype=torch.float32) / dim)
    angles = (places.unsqueeze(-1) * frequencies).flatten(1)  # [P, dim]
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions in float32, as `transformers` applies them. states [..., P, d]."""
    first, second = states.float().chunk(2, dim=-1)
    rotated = torch.cat((-second, first), dim=-1)
    return (states.float() * cos + rotated * sin).to(states.dtype)


def position_ids(prefix: int, grid: int, length: int, device: torch.device) -> Tensor:
    """M-RoPE positions of text, visual tokens, and text again.

    Args:
        prefix: Text tokens before the visual ones.
        grid: Visual tokens a side; 0: text only.
        length: T, all tokens.
        device: Where the result goes.

    Returns:
        [3, T]: the positions along time, rows and columns.
    """
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
    """The language model.

    Args:
        model: The model.
        ids: Right-padded sequences [B, T].
        visual: Visual tokens [B, n, width], which replace the tokens prefix .. prefix + n; None: text alone.
        prefix: Text tokens before the visual ones.

    Returns:
        Final hidden states [B, T, width]; those of padding are meaningless.
    """
    embedded = model.model.language_model.embed_tokens(ids)
    grid = 0
    if visual is not None:
        count = visual.shape[1]
        grid = int(count**0.5)
        embedded = torch.cat((embedded[:, :prefix], visual.to(embedded.dtype), embedded[:, prefix + count :]), dim=1)
    return decoder_states(model, embedded, position_ids(prefix, grid, ids.shape[1], ids.device))


def decoder_states(
    model: Qwen2_5_VLForConditionalGeneration, embedded: Tensor, positions: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The language model's blocks over embedded tokens.

    Args:
        model: The model.
        embedded: Texts' and images' tokens [B, T, width].
        positions: Along time, rows and columns, [3, T] or [B, 3, T].
        mask: What each token sees, [B, 1, T, T]; None: itself and all before it.

    Returns:
        Final hidden states [B, T, width].
    """
    text = model.model.language_model
    rope = cast(dict[str, Any], cast(Qwen2_5_VLTextConfig, model.config.text_config).rope_parameters)
    cos, sin = _multimodal_rotary(
        positions,
        cast(Qwen2_5_VLDecoderLayer, text.layers[0]).self_attn.head_dim,
        rope["rope_theta"],
        rope["mrope_section"],
    )
    hidden = embedded
    for module in text.layers:
        layer = cast(Qwen2_5_VLDecoderLayer, module)
        attention = layer.self_attn
        normed = rms_norm(layer.input_layernorm, hidden)
        query, key, value = (
            rearrange(linear(normed), "b t (h d) -> b h t d", d=attention.head_dim)
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        # Padding is on the right, so causality alone keeps it out of every real token's sight.
        mixed = F.scaled_dot_product_attention(
            query, key, value, mask, is_causal=mask is None, enable_gqa=query.shape[1] != key.shape[1]
        )
        hidden = hidden + attention.o_proj(rearrange(mixed, "b h t d -> b t (h d)"))
        hidden = hidden + layer.mlp(rms_norm(layer.post_attention_layernorm, hidden))
    return rms_norm(text.norm, hidden)


def _multimodal_rotary(positions: Tensor, head_dim: int, theta: float, sections: list[int]) -> tuple[Tensor, Tensor]:
    """M-RoPE: a section of the frequencies turns with one of three position axes.

    Args:
        positions: [3, T] or [B, 3, T].
        head_dim: Of the attention.
        theta: The base of the frequencies.
        sections: How many of them each axis turns.

    Returns:
        Cosine and sine, [T, head_dim] or [B, 1, T, head_dim].
    """
    frequencies = theta ** -(torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim)
    axis = torch.repeat_interleave(torch.arange(3), torch.tensor(sections)).to(positions.device)  # [head_dim / 2]
    angles = positions[..., axis, :].mT * frequencies  # [(B,) T, head_dim / 2]
    angles = torch.cat((angles, angles), dim=-1)
    if angles.ndim == 3:
        angles = angles.unsqueeze(1)  # the same for all heads
    return angles.cos(), angles.sin()


def rms_norm(module: Qwen2_5_VLRMSNorm, hidden: Tensor) -> Tensor:
    """The fused kernel with the module's weight; as in `transformers` the product is in the input's precision."""
    return F.rms_norm(hidden, module.weight.shape, module.weight.to(hidden.dtype), module.variance_epsilon)

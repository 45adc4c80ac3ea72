"""The visual tower of a Qwen2.5-VL over images of any sizes: attention windows of one size go through it as one batch.

`transformers` visits the windows one by one in every layer.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLVisionBlock

from pipeline.encoders.mllm.batched_qwen import patch_places, rms_norm, rotary, rotate
from pipeline.encoders.mllm.qwen import MERGE


def image_tokens(model: Qwen2_5_VLForConditionalGeneration, patches: Tensor, grids: Tensor) -> Tensor:
    """The visual tower over patches.

    Args:
        model: The model.
        patches: Those of N images, one image after the other [P, C], in the processor's order.
        grids: Frames (one), rows and columns of patches of each image [N, 3], on the CPU.

    Returns:
        Tokens of the language model [P / 4, width], one image after the other.
    """
    visual, device = model.model.visual, patches.device
    kernel = visual.patch_embed.proj.weight.flatten(1)  # a convolution whose stride is its kernel is one product
    hidden = F.linear(patches.to(kernel.dtype), kernel)  # [P, D]
    places = torch.cat([patch_places(rows, columns) for _, rows, columns in grids.tolist()])  # [P, 2]
    images = torch.repeat_interleave(torch.arange(len(grids)), grids.prod(1))
    side = visual.config.window_size // visual.config.patch_size // MERGE * MERGE
    row, column = (places // side).unbind(1)
    whole = [rows.to(device) for rows in alike(images)]
    windows = [rows.to(device) for rows in alike((images * len(places) + row) * len(places) + column)]
    cos, sin = rotary(visual, places.to(device))  # [P, head_dim]
    for number, module in enumerate(visual.blocks):
        block = cast(Qwen2_5_VLVisionBlock, module)
        attention, heads = block.attn, block.attn.num_heads
        query, key, value = rearrange(
            attention.qkv(rms_norm(block.norm1, hidden)), "p (three h d) -> three h p d", three=3, h=heads
        )
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        mixed = torch.empty_like(value)
        for rows in whole if number in visual.config.fullatt_block_indexes else windows:
            parts = [rearrange(one[:, rows], "h s p d -> s h p d") for one in (query, key, value)]
            mixed[:, rows] = rearrange(
                F.scaled_dot_product_attention(parts[0], parts[1], parts[2]), "s h p d -> h s p d"
            )
        hidden = hidden + attention.proj(rearrange(mixed, "h p d -> p (h d)"))
        hidden = hidden + block.mlp(rms_norm(block.norm2, hidden))
    return visual.merger(hidden)


def alike(names: Tensor) -> list[Tensor]:
    """Sort patches into segments, and segments by their length.

    Args:
        names: The segment's name of each patch [P].

    Returns:
        For each length L the S segments that have it, as the numbers of their patches [S, L].
    """
    _, segments, counts = names.unique(return_inverse=True, return_counts=True)
    order, begins = segments.argsort(stable=True), counts.cumsum(0) - counts
    return [order[begins[counts == length].unsqueeze(1) + torch.arange(length)] for length in counts.unique().tolist()]

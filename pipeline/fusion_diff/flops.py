"""What the arithmetic of the prior and the adapter costs: for MFU, and for judging a timing."""

from __future__ import annotations

from pipeline.fusion_diff.prior import PriorSizes


def block_flops(sizes: PriorSizes, text_tokens: float) -> float:
    """Operations of one block's body for one row, forward: two for each multiplication of a matrix product."""
    tokens, width = sizes.tokens, sizes.width
    projections = (6 + 2 * sizes.ffn_ratio) * tokens + 2 * text_tokens  # of width x width, for each token they read
    attention = 2 * tokens * (tokens + text_tokens)  # scores and weighted values
    return 2 * width * (projections * width + attention)


def prior_flops(sizes: PriorSizes, text_tokens: float) -> float:
    """Operations of the prior for one row with a text, forward."""
    width = sizes.width
    around: float = 2 * sizes.dim * sizes.features + 2 * sizes.tokens * sizes.patch_dim * width + 3 * width * width
    around += sizes.time_frequencies * width + text_tokens * (sizes.text_dim + width) * width
    return sizes.depth * (block_flops(sizes, text_tokens) + 18 * width**2) + 2 * around


def adapter_flops(sizes: PriorSizes, text_tokens: float) -> float:
    """Operations of the Control-Adapter for one row, forward."""
    zero_layers = 2 * sizes.width * (sizes.depth // 2 * sizes.tokens * sizes.width + sizes.dim)
    return sizes.depth // 2 * block_flops(sizes, text_tokens) + zero_layers


def prior_training_flops(sizes: PriorSizes, text_tokens: float) -> float:
    """Stage 1, one sample: forward, and a backward pass of twice as much."""
    return 3 * prior_flops(sizes, text_tokens)


def control_training_flops(sizes: PriorSizes, text_tokens: float) -> float:
    """Stage 2, one sample: all forward; the frozen decoder only hands gradients on."""
    decoder = sizes.depth // 2 * block_flops(sizes, text_tokens)
    return prior_flops(sizes, text_tokens) + decoder + 3 * adapter_flops(sizes, text_tokens)

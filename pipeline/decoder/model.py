"""The decoder's network: `diffusers`' SANA, which attends to tokens projected from z instead of a text's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import SanaTransformer2DModel
from torch import Tensor, nn

from pipeline.config import DecoderParams

PIXEL_CHANNELS, LATENT_CHANNELS, LATENT_PIXELS = 3, 32, 32
"""Of an image; of SANA's autoencoder DC-AE f32c32, and the side of the square that one of its latents stands for."""


@dataclass(frozen=True)
class DecoderSizes:
    """The sizes of a decoder; see `DecoderParams`."""

    dim: int
    """d, the width of z."""
    channels: int
    """Of what is denoised: pixels or latents."""
    side: int
    """Of what is denoised."""
    patch_size: int
    width: int
    layers: int
    heads: int
    cross_heads: int
    ffn_ratio: float
    positions: bool
    tokens: int
    token_width: int

    @classmethod
    def from_params(cls, params: DecoderParams, dim: int) -> DecoderSizes:
        """The sizes that the parameters ask for, for features of width `dim`."""
        latent = bool(params.checkpoint)
        same = ("patch_size", "width", "layers", "heads", "cross_heads", "ffn_ratio", "positions", "tokens")
        return cls(
            dim=dim,
            channels=LATENT_CHANNELS if latent else PIXEL_CHANNELS,
            side=params.image_size // (LATENT_PIXELS if latent else 1),
            token_width=params.token_width,
            **{name: getattr(params, name) for name in same},
        )

    def sana(self) -> dict[str, Any]:
        """As SANA's configuration. Queries and keys are normalised, as in SANA 1.5."""
        return {
            "in_channels": self.channels,
            "out_channels": self.channels,
            "num_attention_heads": self.heads,
            "attention_head_dim": self.width // self.heads,
            "num_layers": self.layers,
            "num_cross_attention_heads": self.cross_heads,
            "cross_attention_head_dim": self.width // self.cross_heads,
            "cross_attention_dim": self.width,
            "caption_channels": self.token_width,
            "mlp_ratio": self.ffn_ratio,
            "sample_size": self.side,
            "patch_size": self.patch_size,
            "interpolation_scale": 1.0 if self.positions else None,
            "qk_norm": "rms_norm_across_heads",
        }


class Decoder(nn.Module):
    """Predicts the velocity from an image to noise, given z.

    A linear layer makes K tokens of z. Where z is dropped, K learned tokens stand for it.

    Args:
        sizes: Of everything.
    """

    def __init__(self, sizes: DecoderSizes):
        super().__init__()
        self.sizes = sizes
        self.project = nn.Linear(sizes.dim, sizes.tokens * sizes.token_width)
        self.null = nn.Parameter(0.02 * torch.randn(sizes.tokens, sizes.token_width))
        self.transformer: Any = SanaTransformer2DModel(**sizes.sana())  # diffusers' models carry no types

    def forward(self, noisy: Tensor, level: Tensor, z: Tensor, dropped: Tensor | None = None) -> Tensor:
        """The velocity of B noisy images.

        Args:
            noisy: [B, C, S, S].
            level: Their noise levels in [0, 1], [B].
            z: Features of unit norm [B, d].
            dropped: Which of them are not to be seen [B] bool; None: none.

        Returns:
            Float32 [B, C, S, S].
        """
        dtype = self.null.dtype
        scaled = math.sqrt(self.sizes.dim) * z.to(dtype)  # so that a number of it has variance 1
        tokens = self.project(scaled).unflatten(1, (self.sizes.tokens, self.sizes.token_width))  # [B, K, W]
        if dropped is not None:
            tokens = torch.where(dropped[:, None, None], self.null.to(tokens.dtype), tokens)
        return self.transformer(noisy.to(dtype), tokens, 1000.0 * level, return_dict=False)[0].float()

"""The peer of the prior's benchmarks: `diffusers`' PixArtTransformer2DModel of the same depth, width and tokens."""

from __future__ import annotations

from typing import Any

import pipeline  # noqa: F401  (what it declares for torchvision comes before any library that imports that)

# isort: split
import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor, nn

from bench.machine import hardware, versions
from pipeline.fusion_diff import PriorSizes

DEVICE = torch.device("cuda")
PAPER = PriorSizes(
    dim=1536,
    channels=4,
    grid=32,
    patch_size=2,
    width=1152,
    heads=16,
    depth=28,
    ffn_ratio=4,
    time_frequencies=256,
    text_dim=4096,
    text_tokens=300,
)


def make_peer(sizes: PriorSizes = PAPER) -> PixArtTransformer2DModel:
    """Its one AdaLN for all blocks makes it smaller than the prior; the arithmetic of a step is nearly the same."""
    return PixArtTransformer2DModel(
        num_attention_heads=sizes.heads,
        attention_head_dim=sizes.width // sizes.heads,
        in_channels=sizes.channels,
        out_channels=sizes.channels,
        num_layers=sizes.depth,
        cross_attention_dim=sizes.width,
        sample_size=sizes.grid,
        patch_size=sizes.patch_size,
        caption_channels=sizes.text_dim,
        use_additional_conditions=False,
    )


def peer_inputs(rows: int, tokens: int, sizes: PriorSizes = PAPER) -> dict[str, Tensor]:
    """Random inputs of a call, bfloat16."""
    half = {"device": DEVICE, "dtype": torch.bfloat16}
    return {
        "hidden_states": torch.randn(rows, sizes.channels, sizes.grid, sizes.grid, **half),
        "encoder_hidden_states": torch.randn(rows, tokens, sizes.text_dim, **half),
        "timestep": torch.randint(0, 1000, (rows,), device=DEVICE),
    }


@torch.no_grad()
def randomise(module: nn.Module, std: float = 0.02) -> nn.Module:
    """Random values in every parameter: products of zeros, as fresh gates would make, are quicker than real ones."""
    for parameter in module.parameters():
        parameter.normal_(std=std)
    return module


def wait() -> None:
    """Until the GPU has done what is queued."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def where() -> dict[str, Any]:
    """What a GPU figure was measured on."""
    gpu = {}
    if DEVICE.type == "cuda":
        gpu = {
            "gpu": torch.cuda.get_device_name(),
            "gpu_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1),
        }
    return {
        "hardware": hardware() | gpu,
        "versions": versions("torch", "diffusers", "accelerate") | {"cuda": torch.version.cuda},
    }

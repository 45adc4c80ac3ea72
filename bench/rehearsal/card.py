"""A rehearsal on a larger card than the one that it speaks of: what is beyond that card's memory is held back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SHARE = "gpu_memory_utilization"
DEFAULT_SHARE = 0.9
"""What vLLM takes of a card that nobody says otherwise of."""


def hold_back(card: float) -> tuple[Tensor | None, float]:
    """Hold the GPU's memory beyond a card's, as long as the tensor lives.

    Args:
        card: The card's GiB; 0: the whole GPU.

    Returns:
        What is held, and the share of the GPU's memory that is left.

    Raises:
        ValueError: The GPU has less.
    """
    if not card:
        return None, 1.0
    free, total = torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)
    beyond = free - int(card * 2**30)
    if beyond < 0:
        raise ValueError(f"--card: {card:g} GiB, and {free / 2**30:.1f} GiB of this machine's GPU are free")
    return torch.empty(beyond, dtype=torch.uint8, device="cuda"), card * 2**30 / total


def share_out(sections: list[dict[str, Any]], left: float) -> None:
    """Make vLLM's shares of a GPU's memory those of the card; vLLM counts what is held back as the card's own.

    Args:
        sections: Values of the sections with `vllm`, which are changed.
        left: The share of the GPU's memory that is left.
    """
    for section in sections:
        if left < 1:
            section["vllm"] = section["vllm"] | {SHARE: round(left * section["vllm"].get(SHARE, DEFAULT_SHARE), 4)}

"""DiffComp's loss terms (algorithm 1, line 13; equation 17 of the main paper, reconstructed)."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

MAX_SCALE = 100.0
"""CLIP's bound on the inverse temperature."""


def info_nce(
    queries: Tensor,
    keys: Tensor,
    scale: Tensor | float,
    labels: Tensor | None = None,
    negatives: Tensor | None = None,
    negative_labels: Tensor | None = None,
    gather: bool = True,
) -> Tensor:
    """Symmetric InfoNCE between rows that belong together: [B, D] and [B, D], L2-normalised -> scalar.

    labels [B]: other rows with the same label are no negatives (two artists' drawings of one concept
    carry one caption); they are left out of both softmaxes. negatives [M, D], with negative_labels
    [M]: further keys that belong to no query. gather: where a process group is up, the batch is that
    of all processes, with gradients flowing back to each.
    """
    if gather and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        queries, keys, labels, negatives, negative_labels = (
            None if rows is None else gather_rows(rows) for rows in (queries, keys, labels, negatives, negative_labels)
        )
    own = torch.arange(len(queries), device=queries.device)
    with torch.autocast(queries.device.type, enabled=False):
        logits = scale * unhalved(queries) @ unhalved(keys).T  # [B, B]
        further = None if negatives is None else scale * unhalved(queries) @ unhalved(negatives).T  # [B, M]
    if labels is not None:
        twins = (labels[:, None] == labels[None]) & (own[:, None] != own[None])
        logits = logits.masked_fill(twins, float("-inf"))
    there = logits
    if further is not None:
        if labels is not None and negative_labels is not None:
            further = further.masked_fill(labels[:, None] == negative_labels[None], float("-inf"))
        there = torch.cat([logits, further], 1)
    return (F.cross_entropy(there, own) + F.cross_entropy(logits.T, own)) / 2


def ratio_loss(mask: Tensor, rho: float) -> Tensor:
    """(mean_j m_j - rho)^2, averaged over images: [B, N_s] -> scalar."""
    return (mask.mean(1) - rho).square().mean()


def inverse_temperature(logit_scale: Tensor) -> Tensor:
    """exp(logit_scale), at most 100."""
    return logit_scale.exp().clamp(max=MAX_SCALE)


def unhalved(vectors: Tensor) -> Tensor:
    return vectors.float() if vectors.dtype in (torch.float16, torch.bfloat16) else vectors


def gather_rows(rows: Tensor) -> Tensor:
    """Every process's rows, in rank order; all must hold equally many. Differentiable for floats."""
    return _GatherRows.apply(rows)


class _GatherRows(torch.autograd.Function):
    """`all_gather` with a gradient: every process's share of it, summed, of the own rows."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        ctx.own = slice(dist.get_rank() * len(rows), (dist.get_rank() + 1) * len(rows))
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.own]

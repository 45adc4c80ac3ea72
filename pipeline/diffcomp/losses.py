"""DiffComp's three losses (equations 17 to 20; algorithm 1, line 13), known second-hand from public notes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

MAX_SCALE = 100.0
"""CLIP's bound on the inverse temperature."""


@dataclass(frozen=True)
class Negatives:
    """Further keys of InfoNCE that belong to no query."""

    vectors: Tensor
    """[M, D], L2-normalised."""
    labels: Tensor
    """[M]; a query with the same label does not see the key."""


def info_nce(
    queries: Tensor,
    keys: Tensor,
    scale: Tensor | float,
    labels: Tensor | None = None,
    negatives: Negatives | None = None,
    gather: bool = True,
) -> Tensor:
    """InfoNCE from queries to the keys that they belong to, one direction (equation 18).

    With s_ij = scale * q_i . k_j, N_i the keys that are no twins of query i, and n the further negatives:

        L = -1/B sum_i log(exp s_ii / (sum_{j in N_i} exp s_ij + sum_n exp s_in))

    Twins are other rows with the same label: two artists' drawings of one concept carry one caption, and are
    left out.

    Args:
        queries: [B, D], L2-normalised.
        keys: [B, D], L2-normalised; row i belongs to query i.
        scale: The inverse temperature.
        labels: [B], equal where rows are twins; None: there are no twins.
        negatives: Further keys; those with a query's own label are left out.
        gather: Where a process group is up, take the batch of all processes, with gradients to each.

    Returns:
        A scalar.
    """
    further, further_labels = (negatives.vectors, negatives.labels) if negatives else (None, None)
    if gather and processes() > 1:
        queries, keys = gather_rows(queries), gather_rows(keys)
        labels, further, further_labels = (
            None if rows is None else gather_rows(rows) for rows in (labels, further, further_labels)
        )
    own = torch.arange(len(queries), device=queries.device)
    with torch.autocast(queries.device.type, enabled=False):
        logits = scale * in_full_precision(queries) @ in_full_precision(keys).T  # [B, B]
        beside = (
            None if further is None else scale * in_full_precision(queries) @ in_full_precision(further).T
        )  # [B, M]
    if labels is not None:
        twins = (labels[:, None] == labels[None]) & (own[:, None] != own[None])
        logits = logits.masked_fill(twins, float("-inf"))
    if beside is not None:
        if labels is not None and further_labels is not None:
            beside = beside.masked_fill(labels[:, None] == further_labels[None], float("-inf"))
        logits = torch.cat([logits, beside], 1)  # [B, B + M]
    return F.cross_entropy(logits, own)


def difference_loss(salient: Tensor, mask: Tensor) -> Tensor:
    """Equation (19): mask what the most salient phrase names. The mean over images of -mean_{j: m_j = 1} S_k*j.

    Args:
        salient: S_k*j [B, N_s].
        mask: m_j [B, N_s], the weight of each super-patch in the mean; an image without a masked one counts zero.

    Returns:
        A scalar.
    """
    return -((mask * salient).sum(1) / mask.sum(1).clamp(min=1)).mean()


def ratio_loss(mask: Tensor, eta: float) -> Tensor:
    """Equation (20): the mean over images of (mean_j m_j - eta)^2.

    Args:
        mask: m_j [B, N_s]; one means masked.
        eta: The share that is wanted.

    Returns:
        A scalar.
    """
    return (mask.mean(1) - eta).square().mean()


def processes() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def inverse_temperature(logit_scale: Tensor) -> Tensor:
    """exp(logit_scale), at most 100."""
    return logit_scale.exp().clamp(max=MAX_SCALE)


def in_full_precision(vectors: Tensor) -> Tensor:
    """float32 of 16-bit numbers; others as they are."""
    return vectors.float() if vectors.dtype in (torch.float16, torch.bfloat16) else vectors


def gather_rows(rows: Tensor) -> Tensor:
    """Every process's rows, in rank order; all must hold equally many. Differentiable for floats."""
    return _GatherRows.apply(rows)


class _GatherRows(torch.autograd.Function):
    """`all_gather` with a gradient: every process's share of it, summed, of the own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.own = slice(dist.get_rank() * len(rows), (dist.get_rank() + 1) * len(rows))
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.own]

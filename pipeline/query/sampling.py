"""Sampling the targets of many queries, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.config import RetrieveParams
from pipeline.encoders.batching import shown_batches
from pipeline.fusion_diff import TargetSampler, TextConditions


@dataclass(frozen=True)
class Draws:
    """How many targets are drawn, from which noise, and in batches of which size."""

    hypotheses: int
    """For each description of a query."""
    seed: int
    """Of the first description's noise; the next one's is one higher."""
    batch_size: int

    @classmethod
    def from_params(cls, params: RetrieveParams, seed: int, hypotheses: int | None = None) -> Draws:
        """K / D targets, at least one, for each of the D descriptions of a query.

        Args:
            params: Hold K, D and the batch size.
            seed: Of the noise.
            hypotheses: K; None: that of the parameters.
        """
        each = max(1, (hypotheses or params.hypotheses) // params.descriptions)
        return cls(each, seed, params.batch_size)


def draw_targets(
    sampler: TargetSampler,
    ids: Sequence[str],
    texts: Iterable[TextConditions],
    control: Tensor | None,
    draws: Draws,
    negative: TextConditions | None = None,
) -> np.ndarray:
    """Sample the targets of Q queries.

    Args:
        sampler: Draws them.
        ids: The queries' ids, which decide the noise.
        texts: D times the conditions of all queries: of the likeliest descriptions, of the second ones, and so on.
        control: z_r,delta [Q, d]; None for the prior alone.
        draws: How many.
        negative: One text that the guidance leads away from.

    Returns:
        float32 [Q, D * draws.hypotheses, d], L2-normalised.
    """
    parts = []
    for number, text in enumerate(texts):
        drawn = [
            sampler.sample(
                [ids[row] for row in rows],
                text.batch(rows),
                None if control is None else control[rows],
                hypotheses=draws.hypotheses,
                seed=draws.seed + number,
                negative=None if negative is None else negative.batch(torch.zeros_like(rows)),
            ).cpu()
            for rows in map(torch.tensor, shown_batches(range(len(ids)), draws.batch_size, "sampling", "query"))
        ]
        parts.append(torch.cat(drawn))  # [Q, draws.hypotheses, d]
    return torch.cat(parts, dim=1).numpy()

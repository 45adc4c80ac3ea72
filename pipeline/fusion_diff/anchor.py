"""The fused description: what f_M itself says of a target, in its space, before anything is sampled."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pipeline.fusion_diff.conditions import Vectors


def fused_description(fused: Tensor, description: Tensor) -> Tensor:
    """Half way on the sphere from the fused query to the described target.

    Args:
        fused: z_r,delta [Q, d], of unit length.
        description: z of the described target's text [Q, d], of unit length.

    Returns:
        [Q, d] of unit length: their sum, normalised, which is their slerp at 1/2.
    """
    return F.normalize(fused + description, dim=-1)


def towards(samples: Tensor, anchor: Tensor, share: float) -> Tensor:
    """Draw samples towards an anchor.

    Args:
        samples: Sampled targets [Q, K, d], of unit length.
        anchor: The fused description [Q, d], of unit length.
        share: The anchor's weight, in [0, 1]; 0 returns the samples as they are.

    Returns:
        [Q, K, d] of unit length.
    """
    return F.normalize((1.0 - share) * samples + share * anchor[:, None], dim=-1) if share else samples


class FusedDescriptions:
    """Fused descriptions of a training set, made when they are read: `Vectors` over two of them.

    Args:
        fused: z_r,delta [N, d].
        descriptions: z of the descriptions [N, d].
    """

    def __init__(self, fused: Vectors, descriptions: Vectors):
        self._fused, self._descriptions = fused, descriptions
        self.ndim, self.shape = fused.ndim, fused.shape

    def __len__(self) -> int:
        return len(self._fused)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """The rows at `indices` [B] -> [B, d]."""
        return fused_description(self._fused[indices].float(), self._descriptions[indices].float())

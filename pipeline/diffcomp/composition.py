"""DAC: difference-aware composition (equations 14 to 16; algorithm 1, lines 11-12; figure 5 shows 1 - lambda_j).

Where a part of the image disagrees with the text, the text weighs more. The equations are known second-hand, from
public notes on the paper.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.encoders.dual.interface import unit

PARALLEL = 1e-3
"""Below this 1 - cos, slerp's weights come from their power series."""
ANTIPODAL = 1e-4
"""Below this 1 + cos, no great circle is singled out and one is chosen."""


def slerp(start: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """Move from `start` to `end` along the great circle by `weight` of the angle.

    With w the angle between them: slerp(a, b, t) = [sin((1 - t) w) a + sin(t w) b] / sin w. Values and gradients are
    finite everywhere: for parallel vectors by a power series, for antipodal ones by first turning `end` slightly
    towards the axis that `start` uses least.

    Args:
        start: Unit vectors [..., D], D >= 2.
        end: Unit vectors [..., D] that broadcast with `start`.
        weight: t, [...].

    Returns:
        Unit vectors [..., D].
    """
    start, end = torch.broadcast_tensors(start, end)
    weight = torch.as_tensor(weight, dtype=start.dtype, device=start.device)[..., None]
    cos = (start * end).sum(-1, keepdim=True)
    end = torch.where(cos < ANTIPODAL - 1, _turned(start, end), end)
    cos = (start * end).sum(-1, keepdim=True)
    return unit(_sine_ratio(1 - weight, cos) * start + _sine_ratio(weight, cos) * end)


def subtract(query: Tensor, negative: Tensor, weight: Tensor | float) -> Tensor:
    """Turn `query` away from `negative` along their great circle.

    Args:
        query: Unit vectors [..., D].
        negative: Unit vectors [..., D].
        weight: Share, in [0, 1], of the angle that is left to the antipode of `negative`.

    Returns:
        Unit vectors [..., D], finite for equal and for opposite vectors.
    """
    return slerp(query, -negative, weight)


def _turned(start: Tensor, end: Tensor) -> Tensor:
    """`end`, turned by more than the antipodal cap's width, so that the result lies outside of the cap."""
    axis = F.one_hot(start.detach().abs().argmin(-1), start.shape[-1]).to(start)
    axis = unit(axis - (axis * start.detach()).sum(-1, keepdim=True) * start.detach())
    return unit(end + 2 * math.sqrt(2 * ANTIPODAL) * axis)


def _sine_ratio(weight: Tensor, cos: Tensor) -> Tensor:
    """sin(t w) / sin(w) as a smooth function of cos(w): t 2F1(1 - t, 1 + t; 3/2; (1 - cos w) / 2)."""
    near = 1 - cos < PARALLEL
    angle = torch.where(near, torch.zeros_like(cos), cos).acos()  # a harmless angle where the series is used
    x, square = (1 - cos) / 2, weight * weight
    first = (1 - square) / 1.5 * x
    second = first * (4 - square) / (2 * 2.5) * x
    third = second * (9 - square) / (3 * 3.5) * x
    return torch.where(near, weight * (1 + first + second + third), (weight * angle).sin() / angle.sin())


def linear(start: Tensor, end: Tensor, weight: float) -> Tensor:
    """normalise((1 - weight) start + weight end): the baseline's single global interpolation (table 8, row 1)."""
    return unit((1 - weight) * start + weight * end)


class Composition(nn.Module):
    """f_comp from an image's global and local features and a text's feature (equations 14 to 16).

    Over the super-patches that a mask leaves, with sim_j = cos(f_j, f_T):

        lambda_j = lambda_base (1 - exp(sim_j) / max_i exp(sim_i))                            (14)
        f~_j = slerp(f_j, f_T; lambda_j),   f~_global = slerp(f_Id, f_T; lambda_base)         (15)
        f_comp = phi mean_j f~_j + (1 - phi) f~_global                                        (16)

    Cosines within one image spread by 0.2 or so, so lambda_j stays below lambda_base (1 - e^-0.2) = 0.18 lambda_base:
    local parts stay visual, and lambda_base acts on the global part. The notes do not name the path of (15); it is the
    great circle here.

    Args:
        dac: False: one global linear interpolation by lambda_base (table 8, row 1).
        lambda_base: The text's weight in the global part, in [0, 1].
        phi: Weight of the local parts, in [0, 1].
        lambda_query: What stands in lambda_base's place in evaluation mode; 0 keeps lambda_base.
    """

    def __init__(self, dac: bool, lambda_base: float, phi: float, lambda_query: float = 0.0):
        super().__init__()
        self.dac, self.phi = dac, phi
        self.lambda_base, self.lambda_query = lambda_base, lambda_query

    @property
    def local(self) -> bool:
        """Whether super-patches are read."""
        return self.dac and self.phi > 0

    @property
    def base(self) -> float:
        """lambda_base, or lambda_query in evaluation mode."""
        return self.lambda_base if self.training or not self.lambda_query else self.lambda_query

    def weights(self, super_patches: Tensor, text: Tensor, retained: Tensor | None = None) -> Tensor:
        """Equation (14).

        Args:
            super_patches: f_j [B, N_s, D].
            text: f_T [B, D].
            retained: 1 - m_j [B, N_s]: the maximum is over those that are retained by more than half; None: all are.

        Returns:
            lambda_j in [0, lambda_base], [B, N_s].
        """
        similarity = (super_patches * text[:, None]).sum(-1)  # sim_j [B, Ns]
        known = similarity
        if retained is not None:
            kept = retained > 0.5
            kept = kept | ~kept.any(1, keepdim=True)  # nothing is left: any maximum will do
            known = similarity.masked_fill(~kept, float("-inf"))
        return self.base * (1 - (similarity - known.amax(1, keepdim=True)).exp()).clamp(min=0)

    def forward(
        self, image: Tensor, super_patches: Tensor | None, text: Tensor, retained: Tensor | None = None
    ) -> Tensor:
        """Compose images with texts.

        Args:
            image: f_Id [B, D].
            super_patches: f_j [B, N_s, D]; unread without DAC and where phi is zero.
            text: f_T [B, D].
            retained: 1 - m_j [B, N_s], the weight of each super-patch in the mean; None: all count alike. Where
                nothing is retained, f_comp is the global part.

        Returns:
            f_comp [B, D], L2-normalised.

        Raises:
            ValueError: DAC got no super-patches.
        """
        if not self.dac:
            return linear(image, text, self.base)
        whole = slerp(image, text, self.base)
        if not self.local:
            return whole
        if super_patches is None:
            raise ValueError("difference-aware composition needs super-patch features")
        parts = slerp(super_patches, text[:, None], self.weights(super_patches, text, retained))  # f~_j [B, Ns, D]
        if retained is None:
            mean = parts.mean(1)
        else:
            share = retained[..., None].to(parts)
            mean = (share * parts).sum(1) / share.sum(1).clamp(min=1)
        empty = mean.detach().square().sum(-1, keepdim=True) == 0
        return unit(self.phi * mean + torch.where(empty, 1.0, 1 - self.phi) * whole)

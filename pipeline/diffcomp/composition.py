"""DAC: difference-aware composition (algorithm 1, lines 11-12; figure 2; figure 5 shows 1 - alpha_j).

Where the image disagrees with the text, the text weighs more. The supplement cites its equations (14)-(16) without
showing them; what is implemented is this project's form, which `Composition` states.
"""

from __future__ import annotations

import math
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.diffcomp import AlphaForm
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


def discrepancy(image: Tensor, text: Tensor) -> Tensor:
    """d = 1 - cos: [..., D] and [..., D] that broadcast, L2-normalised -> [...]."""
    return 1 - (image * text).sum(-1)


class Composition(nn.Module):
    """f_comp from an image's global and local features and a text's feature.

    This project's form, with d_j = 1 - cos(f_j^d, f_T), its mean mu and variance v over the image's super-patches:

        alpha_j = sigmoid(logit(alpha_base) + kappa (d_j - mu) / sqrt(v + 1e-6))      alpha_form = sigmoid
        alpha_j = clip(alpha_base + kappa (d_j - mu), 0, 1)                           alpha_form = clip
        whole   = slerp(f_Id, f_T, mean_j alpha_j),   g_j = slerp(f_j^d, f_T, alpha_j)
        f_comp  = normalise((1 - lambda) whole + lambda normalise(mean_j g_j))

    Differences are standardised because raw ones hardly move alpha. The global weight is the mean of the alpha_j: a
    global discrepancy has no siblings in its image to be compared with, and one compared with training images carries
    their statistics into queries. A modification disagrees with its reference far more than a caption with its image,
    so every query would become its text.

    Args:
        dac: False: one global linear interpolation.
        alpha_base: The text's weight where differences do not move it, in [0, 1].
        lam: lambda, the weight of the local composition, in [0, 1].
        alpha_form: How differences move alpha.
        kappa: How strongly, before training; it is learned as its logarithm.
        alpha_query: What stands in alpha_base's place in evaluation mode, since a modification and its reference are
            no caption and masked image; 0 keeps alpha_base.

    Raises:
        ValueError: There is no such form.
    """

    def __init__(
        self,
        dac: bool = True,
        alpha_base: float = 0.8,
        lam: float = 0.4,
        alpha_form: AlphaForm = "sigmoid",
        kappa: float = 1.0,
        alpha_query: float = 0.0,
    ):
        super().__init__()
        if alpha_form not in get_args(AlphaForm):
            raise ValueError(f"alpha_form {alpha_form!r} is not one of {', '.join(get_args(AlphaForm))}")
        self.dac, self.alpha_form, self.lam = dac, alpha_form, lam
        self.alpha_base, self.alpha_query = alpha_base, alpha_query
        self.log_kappa = nn.Parameter(torch.tensor(math.log(kappa)), requires_grad=dac)

    @property
    def base(self) -> float:
        """The text's weight before differences: alpha_base, or alpha_query in evaluation mode."""
        return self.alpha_base if self.training or not self.alpha_query else self.alpha_query

    def weights(self, super_patches: Tensor, text: Tensor) -> Tensor:
        """The text's weight for every super-patch.

        Args:
            super_patches: f_j^d [B, N_s, D].
            text: f_T [B, D].

        Returns:
            alpha_j [B, N_s].
        """
        difference = discrepancy(super_patches, text[:, None])  # [B, Ns]
        centred = difference - difference.mean(1, keepdim=True)
        kappa = self.log_kappa.exp()
        if self.alpha_form == "clip":
            return (self.base + kappa * centred).clamp(0, 1)
        base = torch.tensor(self.base, dtype=centred.dtype, device=centred.device).logit()
        variance = centred.square().mean(1, keepdim=True)
        return (base + kappa * centred * (variance + 1e-6).rsqrt()).sigmoid()

    def forward(self, image: Tensor, super_patches: Tensor | None, text: Tensor) -> Tensor:
        """Compose images with texts.

        Args:
            image: f_Id [B, D].
            super_patches: f_j^d [B, N_s, D]; unread without DAC.
            text: f_T [B, D].

        Returns:
            f_comp [B, D].

        Raises:
            ValueError: DAC got no super-patches.
        """
        if not self.dac:
            return linear(image, text, self.base)
        if super_patches is None:
            raise ValueError("difference-aware composition needs super-patch features")
        alpha = self.weights(super_patches, text)  # [B, Ns]
        whole = slerp(image, text, alpha.mean(1))
        if not self.lam:
            return whole
        parts = slerp(super_patches, text[:, None], alpha)  # g_j [B, Ns, D]
        return unit((1 - self.lam) * whole + self.lam * unit(parts.mean(1)))

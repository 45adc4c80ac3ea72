"""Augmentation on the device, so that a model trained on two teams' drawings also reads a third team's.

The images of one character differ between teams in outline, shading, proportion and colour, so
these are varied: outlines are thinned or thickened (grey morphology), gradients flattened or
blurred, shapes bent, colours jittered, parts hidden. Nothing is mirrored: direction has a meaning.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Augment every image of a batch in its own way.

    Args:
        images: [B, 3, H, W] in [0, 1], on white.
        generator: Makes all random draws, on the images' device.

    Returns:
        [B, 3, H, W] in [0, 1].
    """
    images = _warp(images, generator)
    images = _choose(images, _morphology(images, generator), 0.4, generator)
    images = _choose(images, _posterise(images, generator), 0.2, generator)
    images = _choose(images, _blur(images), 0.2, generator)
    images = _colour(images, generator)
    images = _choose(images, images.mean(1, keepdim=True).expand_as(images), 0.05, generator)
    images = _choose(images, _erase(images, generator), 0.3, generator)
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return (images + 0.02 * noise).clamp(0, 1)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draws from [low, high), [count]."""
    return torch.rand(count, generator=generator, device=generator.device) * (high - low) + low


def _choose(images: Tensor, changed: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """`changed` for a random share of the images."""
    take = _uniform(len(images), 0, 1, generator) < probability
    return torch.where(take.view(-1, 1, 1, 1), changed, images)


def _warp(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotation, scale, aspect, shift and a smooth random bend; the outside is white."""
    count, size = len(images), images.shape[-1]
    angle = _uniform(count, -0.2, 0.2, generator)
    scale_x = 1 / (_uniform(count, 0.75, 1.15, generator))
    scale_y = scale_x * _uniform(count, 0.88, 1.14, generator)
    cos, sin = angle.cos(), angle.sin()
    shift = _uniform(2 * count, -0.12, 0.12, generator).view(2, count)
    matrix = torch.stack((cos * scale_x, -sin * scale_y, shift[0], sin * scale_x, cos * scale_y, shift[1]), -1)
    grid = F.affine_grid(matrix.view(count, 2, 3), list(images.shape), align_corners=False)  # [B, H, W, 2]
    bend = torch.randn((count, 2, 4, 4), generator=generator, device=images.device) * 0.05
    bend = F.interpolate(bend, size=(size, size), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    return 1 - F.grid_sample(1 - images, grid + bend, align_corners=False)


def _morphology(images: Tensor, generator: torch.Generator) -> Tensor:
    """Dilation of light, which thins dark outlines, or for a third of dark, which thickens them."""
    lighter = F.max_pool2d(images, 3, stride=1, padding=1)
    darker = -F.max_pool2d(-images, 3, stride=1, padding=1)
    strength = _uniform(len(images), 0.3, 1.0, generator).view(-1, 1, 1, 1)
    return images + strength * (_choose(lighter, darker, 0.35, generator) - images)


def _posterise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Colours in 3 to 8 steps: gradients become flat."""
    levels = _uniform(len(images), 3, 8, generator).round().view(-1, 1, 1, 1)
    return (images * levels).round() / levels


def _blur(images: Tensor) -> Tensor:
    """The mean over 3 x 3 pixels."""
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def _colour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Jitter brightness, contrast and saturation a little and hue hardly: captions name colours. White stays white."""
    count = len(images)
    gain = 1 + 0.06 * torch.randn((count, 3, 1, 1), generator=generator, device=images.device)
    contrast = _uniform(count, 0.8, 1.2, generator).view(-1, 1, 1, 1)
    saturation = _uniform(count, 0.7, 1.35, generator).view(-1, 1, 1, 1)
    gamma = _uniform(count, 0.8, 1.25, generator).view(-1, 1, 1, 1)
    grey = images.mean(1, keepdim=True)
    coloured = grey + saturation * (images - grey)
    ink = (1 - coloured).clamp(0, 1) * gain * contrast  # zero on white, so the background keeps its colour
    return (1 - ink).clamp(1e-4, 1) ** gamma


def _erase(images: Tensor, generator: torch.Generator) -> Tensor:
    """One rectangle of up to 40% of a side becomes white or the image's mean."""
    count, size = len(images), images.shape[-1]
    centre = _uniform(2 * count, 0, size, generator).view(2, count, 1)
    half = _uniform(2 * count, 0.05 * size, 0.2 * size, generator).view(2, count, 1)
    axis = torch.arange(size, device=images.device).view(1, -1)
    rows = (axis - centre[0]).abs() < half[0]  # [B, H]
    columns = (axis - centre[1]).abs() < half[1]
    inside = (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)  # [B, 1, H, W]
    return torch.where(inside, torch.ones_like(images), images)


def mix_styles(first: Tensor, second: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Blend two teams' drawings of the same characters: drawings between the styles.

    Args:
        first: Images [B, 3, H, W].
        second: The other team's images of the same characters.
        probability: Share of the images that are blended.
        generator: Makes all random draws, on the images' device.

    Returns:
        [B, 3, H, W]: `first`, some of it blended.
    """
    weight = _uniform(len(first), 0.2, 0.8, generator).view(-1, 1, 1, 1)
    return _choose(first, weight * first + (1 - weight) * second, probability, generator)

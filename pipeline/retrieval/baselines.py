"""Training-free compositions of an image vector and a text vector of one space.

All take `image` and `text` [Q, d] of unit length and the text's weight, and return unit vectors [Q, d].
"""

from __future__ import annotations

import numpy as np

_PARALLEL = 1e-6


def image_only(image: np.ndarray, text: np.ndarray, weight: float = 0.0) -> np.ndarray:
    """The reference alone."""
    return image


def text_only(image: np.ndarray, text: np.ndarray, weight: float = 1.0) -> np.ndarray:
    """The modification alone."""
    return text


def image_text(image: np.ndarray, text: np.ndarray, weight: float = 0.5) -> np.ndarray:
    """The normalised weighted sum; the image where the sum vanishes."""
    composed = (1 - weight) * image + weight * text
    norms = np.linalg.norm(composed, axis=-1, keepdims=True)
    return np.where(norms > _PARALLEL, composed / np.maximum(norms, _PARALLEL), image)


def slerp(image: np.ndarray, text: np.ndarray, weight: float = 0.5) -> np.ndarray:
    """The point at `weight` of the arc from image to text.

    Of the many arcs between opposite vectors it takes the one through the axis that the image is
    furthest from.
    """
    cosine = np.clip((image * text).sum(axis=-1, keepdims=True), -1.0, 1.0)  # [Q, 1]
    towards = text - cosine * image  # [Q, d], orthogonal to the image
    length = np.linalg.norm(towards, axis=-1, keepdims=True)
    opposite = (length < _PARALLEL) & (cosine < 0)
    axis = np.eye(image.shape[-1], dtype=image.dtype)[np.abs(image).argmin(axis=-1)]  # [Q, d]
    axis = axis - (axis * image).sum(axis=-1, keepdims=True) * image
    towards = np.where(opposite, axis, towards)
    towards = towards / np.maximum(np.linalg.norm(towards, axis=-1, keepdims=True), np.finfo(image.dtype).tiny)
    towards = np.where((length < _PARALLEL) & (cosine > 0), 0.0, towards)
    angle = weight * np.where(opposite, np.pi, np.arctan2(length, cosine))
    composed = np.cos(angle) * image + np.sin(angle) * towards
    return (composed / np.linalg.norm(composed, axis=-1, keepdims=True)).astype(image.dtype)

"""What moves a query after its method has composed it: further references, and answers that a person has judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.app.search.reference import RequestError

MAX_REFERENCES, MAX_JUDGED = 8, 100
"""Largest numbers of references, and of liked and of disliked answers."""
MAX_WEIGHT = 10.0


@dataclass(frozen=True)
class Reference:
    """A further reference image."""

    image: Image.Image
    """RGB."""
    weight: float
    """Beside the first reference, which weighs 1. Above 0: composed with the text too. Below: the query moves away."""
    image_id: str | None = None
    """Its id in the gallery, if it is one of its images."""


@dataclass(frozen=True)
class Steering:
    """Further references and judged answers. The judged ones move a query as Rocchio's formula does.

    Raises:
        RequestError: A weight or a number of images is out of range.
    """

    references: tuple[Reference, ...] = ()
    liked: tuple[str, ...] = ()
    """Ids of the gallery: the query moves towards their mean."""
    disliked: tuple[str, ...] = ()
    """Ids of the gallery: the query moves away from their mean, and they are no results."""
    liked_weight: float = 0.75
    disliked_weight: float = 0.25

    def __post_init__(self) -> None:
        if len(self.references) >= MAX_REFERENCES:
            raise RequestError(f"references: at most {MAX_REFERENCES} are taken, there are {1 + len(self.references)}")
        for name in ("liked", "disliked"):
            if len(getattr(self, name)) > MAX_JUDGED:
                raise RequestError(f"{name}: at most {MAX_JUDGED} ids are taken, there are {len(getattr(self, name))}")
        for reference in self.references:
            if not (math.isfinite(reference.weight) and 0.0 < abs(reference.weight) <= MAX_WEIGHT):
                raise RequestError(f"weight: {reference.weight} is 0, or not within {MAX_WEIGHT:g} times the first one")
        for name in ("liked_weight", "disliked_weight"):
            if not 0.0 <= getattr(self, name) <= MAX_WEIGHT:
                raise RequestError(f"{name}: {getattr(self, name)} is not between 0 and {MAX_WEIGHT:g}")
        if both := set(self.liked) & set(self.disliked):
            raise RequestError(f"{min(both)!r} is both liked and disliked")

    @property
    def added(self) -> tuple[Reference, ...]:
        """The references that are composed with the text."""
        return tuple(reference for reference in self.references if reference.weight > 0)

    @property
    def subtracted(self) -> tuple[Reference, ...]:
        """The references that the query moves away from."""
        return tuple(reference for reference in self.references if reference.weight < 0)

    @property
    def left_out(self) -> frozenset[str]:
        """Ids that must not be results."""
        return frozenset(self.disliked) | {one.image_id for one in self.references if one.image_id is not None}


NO_STEERING = Steering()


def weighted_sum(parts: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """The normalised weighted sum of vectors.

    Args:
        parts: N vectors, each [d], or [K, d] for K hypotheses.
        weights: N weights.

    Returns:
        float32 [d], or [K, d] where a part has hypotheses; unit length.

    Raises:
        RequestError: The parts cancel each other out.
    """
    total = sum(np.multiply(weight, part, dtype=np.float64) for part, weight in zip(parts, weights, strict=True))
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    if not (length > 1e-6).all():
        raise RequestError("the weights: plus and minus cancel each other out; change one of them")
    return (total / length).astype(np.float32)

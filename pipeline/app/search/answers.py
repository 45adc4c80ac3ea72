"""What a search finds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Hit:
    """One image of the gallery that answers a request."""

    image_id: str
    score: float
    name: str = ""
    """What the image is called, where the gallery knows more than its id."""


@dataclass(frozen=True)
class Answer:
    """What one method answers, and what it went through."""

    method: str
    space: str
    """Where it searched."""
    hits: list[Hit]
    seconds: dict[str, float]
    """Part (describe, sample, search, rerank) -> time."""
    descriptions: list[str]
    """The target as it was described on the way, the likeliest first."""
    vector: np.ndarray
    """What was searched, [d] or [K, d]."""

"""Turning query vectors away from a negative text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.diffcomp import subtract
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.query.interface import Controls
from pipeline.retrieval.queries import Query


def turn_away(vectors: np.ndarray, negative: np.ndarray, weight: float) -> np.ndarray:
    """Turn vectors away from a direction, along the great circle between them.

    Args:
        vectors: [Q, d], unit length.
        negative: [1, d] or [Q, d], unit length or zero.
        weight: How far, as a share in [0, 1] of the angle that is left to the opposite of `negative`.

    Returns:
        [Q, d], unit length.
    """
    query = torch.from_numpy(vectors)
    return subtract(query, torch.from_numpy(negative).expand_as(query), weight).numpy()


def beyond(negative: Tensor, wanted: Tensor) -> Tensor:
    """What a negative text says beyond the wanted one: a direction, zero where they say the same.

    All texts lie apart from images in a common direction. It drops out of the difference. Turned away from that
    too, a query would only come nearer to every image.

    Args:
        negative: [1, d], unit length.
        wanted: [Q, d], unit length.

    Returns:
        [Q, d], of unit length or zero.
    """
    return F.normalize(negative - wanted, dim=-1, eps=1e-6)


@torch.inference_mode()
def turned(encoder: ImageTextEncoder, vectors: np.ndarray, queries: Sequence[Query], controls: Controls) -> np.ndarray:
    """Query vectors away from what the controls' negative text says beyond each modification.

    Args:
        encoder: Embeds the texts in the space of the vectors.
        vectors: [Q, d], unit length.
        queries: Q queries.
        controls: The negative text, and how far to turn.

    Returns:
        [Q, d], unit length.
    """

    def encoded(texts: Sequence[str]) -> Tensor:
        return encoder.encode_text(encoder.tokenize(texts).to(encoder.mean.device))

    direction = beyond(encoded([controls.negative]), encoded([query.text for query in queries]))
    return turn_away(vectors, direction.float().cpu().numpy(), controls.negative_weight)

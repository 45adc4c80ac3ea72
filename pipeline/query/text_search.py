"""Searching a backbone's space with texts: what the methods that describe targets in words share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.encoders.batching import encode_in_batches
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.query.interface import Controls
from pipeline.query.models import Models
from pipeline.query.turning import beyond, turn_away


def text_vectors(models: Models, texts: Sequence[str], title: str) -> np.ndarray:
    """f_T of N texts by the untouched backbone, float32 [N, d].

    Args:
        models: Holds the backbone.
        texts: N texts.
        title: Of the progress bar.
    """
    size = models.params.retrieve.batch_size
    return encode_in_batches(lambda batch: _encode(models.backbone, batch), texts, size, title)


@torch.inference_mode()
def turned_from_text(models: Models, vectors: np.ndarray, controls: Controls) -> np.ndarray:
    """Text vectors [Q, d], away from what a negative text says beyond them."""
    negative, wanted = _encode(models.backbone, [controls.negative]).cpu(), torch.from_numpy(vectors)
    return turn_away(vectors, beyond(negative.float(), wanted).numpy(), controls.negative_weight)


def _encode(backbone: ImageTextEncoder, texts: Sequence[str]) -> Tensor:
    """f_T of texts, [B, d]."""
    return backbone.encode_text(backbone.tokenize(texts).to(backbone.mean.device))

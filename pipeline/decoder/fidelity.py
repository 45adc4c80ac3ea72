"""How faithful a decoder is: whether f_M finds in a decoded image what the image was decoded from."""

from __future__ import annotations

import numpy as np

Scores = dict[str, float]
FIDELITY = "fidelity.json"
"""Stands beside the weights."""
DEPTHS = (1, 10)
ROWS_AT_ONCE = 1024


def fidelity(decoded: np.ndarray, z: np.ndarray, training: np.ndarray, seed: int) -> dict[str, Scores]:
    """Compare the features of decoded images with those that they were decoded from.

    Args:
        decoded: f_M of the N decoded images [N, d], of unit norm.
        z: What they were decoded from [N, d]: f_M of N source images.
        training: f_M of the decoder's M training images [M, d].
        seed: Decides how features are shuffled.

    Returns:
        By what stands for a source image, the mean cosine with its z and the share of sources (%) that it finds among
        the first 1 and 10 of all N. `decoded`: the image decoded from its z; `shuffled`: one decoded from another's;
        `nearest_training_image`: no decoder, but the training image whose feature is nearest to z.
    """
    shuffled = np.random.default_rng(seed).permutation(len(z))
    nearest = np.concatenate(
        [training[(part @ training.T).argmax(1)] for part in np.split(z, range(ROWS_AT_ONCE, len(z), ROWS_AT_ONCE))]
    )
    found = {"decoded": decoded, "shuffled": decoded[shuffled], "nearest_training_image": nearest}
    return {name: _scores(vectors, z) for name, vectors in found.items()}


def _scores(vectors: np.ndarray, z: np.ndarray) -> Scores:
    own = np.einsum("nd,nd->n", vectors, z)  # cosines
    better = np.concatenate(
        [
            (vectors[first : first + ROWS_AT_ONCE] @ z.T > own[first : first + ROWS_AT_ONCE, None] + 1e-6).sum(1)
            for first in range(0, len(z), ROWS_AT_ONCE)
        ]
    )  # how many of all sources score more than its own
    return {"cosine": float(own.mean())} | {f"R@{k}": 100.0 * float((better < k).mean()) for k in DEPTHS}

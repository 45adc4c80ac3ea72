"""A space: where the images of a gallery lie as vectors, and where queries are searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from pipeline.artifacts import ArtifactError

if TYPE_CHECKING:
    from pipeline.retrieval.index import Index

FUSED = "fused"
"""The space of f_M's fused embeddings."""
CLIP = "clip"
"""The space of the untouched image-text backbone. Every DiffComp variant has a space under its own name."""


class Space(Protocol):
    """A name, the identity of the model that embeds into it, and the embedding of images."""

    @property
    def name(self) -> str:
        """The folder of its galleries and indexes."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the manifest of every gallery in this space must say. Reading it loads no model."""

    @property
    def dim(self) -> int:
        """d: the width of the vectors."""

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Embed N images in RGB.

        Returns:
            float32 [N, d], L2-normalised.
        """


def open_index(folder: str | Path, space: Space, threads: int = 1) -> Index:
    """Load the index of one space.

    Args:
        folder: Holds one index a space, under the spaces' names.
        space: What the queries are embedded in.
        threads: CPU threads of a search.

    Returns:
        The index.

    Raises:
        ArtifactError: It is missing or damaged, or another model embedded its gallery.
    """
    from pipeline.retrieval.opening import load_index  # FAISS, which a space itself does not need

    index = load_index(Path(folder) / space.name, threads=threads)
    found = index.manifest["gallery_identity"]
    for key, expected in space.identity.items():
        if found.get(key) != expected:
            where = Path(folder) / space.name
            raise ArtifactError(f"{where}: its gallery has {key} = {found.get(key)!r}, the queries {expected!r}")
    return index

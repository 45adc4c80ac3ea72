"""The spaces of the models: f_M's, the untouched backbone's, and one for every DiffComp variant."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.artifacts import ShardSet, sha256_file
from pipeline.artifacts.model_files import WEIGHTS
from pipeline.artifacts.shards import MANIFEST
from pipeline.diffcomp.checkpoints import variant_identity
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.encoders.embedding.dual_gallery import embed_gallery
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.readers import ImageReader
from pipeline.encoders.embedding.shared_blocks import SharingEncoder
from pipeline.encoders.embedding.vectors import embedding_job
from pipeline.encoders.identity import backbone_identity, mllm_identity
from pipeline.encoders.image_source import ImageTable, square_pixels
from pipeline.encoders.mllm.interface import Embedder, MllmInput
from pipeline.query.models import PEERS, Models
from pipeline.retrieval.spaces import CLIP, FUSED


class ModelSpace(ABC):
    """A `Space` whose model is opened when it first embeds."""

    def __init__(self, name: str, models: Models):
        self.name, self._models = name, models

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What the manifest of every gallery in this space must say."""

    @property
    @abstractmethod
    def embedder(self) -> Embedder:
        """What an embedding job runs."""

    def embed_table(self, images: Path, out: Path) -> None:
        """Embed a table of images, as `schemas.embeddings`. A finished set is left alone, a killed run goes on.

        Args:
            images: A shard set of images.
            out: Where the shard set of vectors goes.
        """
        options = JobOptions.from_params(self._models.params.embedder, self._models.params.jobs)
        job = embedding_job(self.embedder)
        run_job(ImageReader(ShardSet.open(images)), job, out, self.identity | _images(images), options)

    @property
    def missing(self) -> Path | None:
        """The folder of a trained model that is not there yet; None: images can be embedded."""
        return None

    @property
    def dim(self) -> int:
        """d: the width of the vectors."""
        return self.embedder.dim

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Images in RGB -> float32 [N, d], L2-normalised."""
        return self.embedder.embed([MllmInput(image=image) for image in images])


class FusedSpace(ModelSpace):
    """f_M's fused embeddings. An image alone is a query without a modification."""

    def __init__(self, models: Models):
        super().__init__(FUSED, models)

    @cached_property
    def identity(self) -> dict[str, Any]:
        return mllm_identity(self._models.params.embedder)

    @property
    def embedder(self) -> Embedder:
        return self._models.embedder


class DualSpace(ModelSpace):
    """The image side of a dual encoder."""

    @property
    @abstractmethod
    def encoder(self) -> ImageTextEncoder:
        """The dual encoder."""

    @cached_property
    def embedder(self) -> Embedder:
        return ImageEmbedder(self.encoder)

    @property
    def _gallery_encoder(self) -> ImageTextEncoder | SharingEncoder:
        """The encoder as it embeds a table."""
        return self.encoder

    def embed_table(self, images: Path, out: Path) -> None:
        size = self._models.params.embedder.batch_size
        identity = self.identity | _images(images) | {"batch_size": size}
        embed_gallery(self._gallery_encoder, ImageTable(images), out, identity, size)


class BackboneSpace(DualSpace):
    """The backbone that DiffComp starts from, untouched."""

    def __init__(self, models: Models):
        super().__init__(CLIP, models)

    @cached_property
    def identity(self) -> dict[str, Any]:
        section = self._models.params.diffcomp
        return backbone_identity(section.backbone, section.pretrained, section.image_size)

    @property
    def encoder(self) -> ImageTextEncoder:
        return self._models.backbone


class VariantSpace(DualSpace):
    """A trained DiffComp variant, under its name."""

    @cached_property
    def identity(self) -> dict[str, Any]:
        return variant_identity(self._models.diffcomp_folder(self.name))

    @property
    def encoder(self) -> ImageTextEncoder:
        return self._models.diffcomp(self.name).encoder

    @property
    def _gallery_encoder(self) -> ImageTextEncoder | SharingEncoder:
        return self._models.shared_blocks.join(self.encoder)

    @property
    def missing(self) -> Path | None:
        folder = self._models.diffcomp_folder(self.name)
        return None if (folder / WEIGHTS).is_file() else folder


class PeerSpace(DualSpace):
    """The space of a peer that tunes the backbone, under its name."""

    @cached_property
    def identity(self) -> dict[str, Any]:
        return {"peer": sha256_file(PEERS / self.name / WEIGHTS)}

    @property
    def encoder(self) -> ImageTextEncoder:
        return self._models.peer(self.name).encoder

    @property
    def missing(self) -> Path | None:
        folder = PEERS / self.name
        return None if (folder / WEIGHTS).is_file() else folder


class ImageEmbedder:
    """The image side of a dual encoder, as an embedding job runs it."""

    def __init__(self, encoder: ImageTextEncoder):
        self._encoder, self.dim = encoder, encoder.dim

    def embed(self, inputs: Sequence[MllmInput]) -> np.ndarray:
        """f_I of the inputs' images, float32 [N, d]; texts are ignored."""
        return self.embed_images([one.image for one in inputs if one.image is not None])

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """f_I of images in RGB, float32 [N, d]."""
        pixels = torch.stack([square_pixels(image, self._encoder.image_size, self._encoder.fit) for image in images])
        return self._encoder.encode_image(self._encoder.normalise(pixels)).float().cpu().numpy()


def _images(folder: Path) -> dict[str, str]:
    """What identifies a table of images."""
    return {"images": sha256_file(folder / MANIFEST)}

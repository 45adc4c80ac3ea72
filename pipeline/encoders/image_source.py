"""Images by id: as PIL images for f_M, as pixels for the dual encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.artifacts import ArtifactError, ShardSet
from pipeline.artifacts.decoding import ImageError, decode
from pipeline.artifacts.images import EncodedImages, chosen_images, image_columns, treatment_of

Fit = Literal["crop", "squash"]
"""How an image becomes a square. crop: its shorter side fits, and the centre is kept. squash: both sides fit."""


class ImageSource(ABC):
    """Images by id."""

    @abstractmethod
    def image(self, image_id: str, max_side: int = 0) -> Image.Image:
        """One image as RGB.

        Args:
            image_id: Its id.
            max_side: Reduce it so that neither side is longer, in pixels, by the very steps of the jobs that embed
                galleries; 0: as it is.
        """

    def pixels(self, image_ids: Sequence[str], size: int, fit: Fit = "crop") -> Tensor:
        """N images as squares.

        Args:
            image_ids: The N ids.
            size: The side of a square, in pixels.
            fit: How they become squares.

        Returns:
            uint8 [N, 3, size, size].
        """
        pixels = torch.empty(len(image_ids), 3, size, size, dtype=torch.uint8)
        for row, image_id in enumerate(image_ids):
            pixels[row] = square_pixels(self.image(image_id), size, fit)
        return pixels

    def stored(self, space: str) -> Mapping[str, np.ndarray]:
        """Vectors that need no model any more.

        Args:
            space: The name of a space.

        Returns:
            Id -> the image's vector in that space, [d]; only of images that were embedded there before.
        """
        return {}


class InMemoryImages(ImageSource):
    """RGB images that are in memory already. f_M reduces them itself.

    Args:
        images: Id -> image.
        stored: Space -> id -> vector, see `ImageSource.stored`.
    """

    def __init__(
        self, images: Mapping[str, Image.Image], stored: Mapping[str, Mapping[str, np.ndarray]] = MappingProxyType({})
    ):
        self._images, self._stored = images, stored

    def stored(self, space: str) -> Mapping[str, np.ndarray]:
        return self._stored.get(space, {})

    def image(self, image_id: str, max_side: int = 0) -> Image.Image:
        return self._images[image_id]


class ImageTable(ImageSource):
    """The images of one shard set, kept encoded (or by path) and decoded on demand.

    Args:
        folder: A shard set of `schemas.IMAGES` or `schemas.IMAGE_FILES`.
        only: Ids of the images that are wanted; None: all of them.

    Raises:
        ArtifactError: The shard set cannot be read. Later: an image is missing or cannot be decoded; it is named.
    """

    def __init__(self, folder: str | Path, only: Collection[str] | None = None):
        self.folder = Path(folder)
        shards = ShardSet.open(folder)
        self.ids: list[str]
        self._encoded: Sequence[bytes] | EncodedImages
        if only is None:
            table = shards.table(image_columns(shards))
            self.ids, self._encoded = table["image_id"].to_pylist(), EncodedImages(table)
        else:
            self.ids, self._encoded = chosen_images(shards, only)
        self._treatment = treatment_of(shards)
        self._rows = {image_id: row for row, image_id in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, image_id: str, max_side: int = 0) -> Image.Image:
        if image_id not in self._rows:
            raise ArtifactError(f"{self.folder}: image {image_id!r} is not there")
        try:
            return decode(self._encoded[self._rows[image_id]], max_side, self._treatment)
        except ImageError as error:
            raise ArtifactError(f"{self.folder}: image {image_id!r}: {error}") from None


def square_pixels(image: Image.Image, size: int, fit: Fit = "crop") -> Tensor:
    """An RGB image as a square, uint8 [3, size, size]."""
    square = centre_square(image, size) if fit == "crop" else squashed(image, size)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def squashed(image: Image.Image, size: int) -> Image.Image:
    """An image resized to `size` x `size`, whatever its shape was; itself where it has that size already."""
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """Resize an image until its shorter side is `size`, and keep the centre.

    Args:
        image: Any size.
        size: The side of the square, in pixels.

    Returns:
        The centre, `size` x `size`; the image itself where it has that size already.
    """
    if image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))

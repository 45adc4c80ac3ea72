"""The training pairs as the frozen backbone sees them: features are made once and shared by all peers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.artifacts import ShardSet, sha256_file
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import Params
from pipeline.encoders.batching import encode_in_batches
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.encoders.dual.open import load_image_text_encoder
from pipeline.encoders.embedding.dual_gallery import embed_gallery
from pipeline.encoders.identity import backbone_identity
from pipeline.encoders.image_source import ImageTable
from pipeline.runtime import device
from pipeline.text.captions import share_of

IMAGES, TEXTS = Path("data/pairs/images"), Path("data/texts/pairs")
CACHE = Path("models/.made/peers_images")
"""The images' features. They are a cache, and no output of the stage."""


def peers_backbone(params: Params) -> dict[str, Any]:
    """What the peers' backbone is known by: that of `diffcomp`."""
    section = params.diffcomp
    return backbone_identity(section.backbone, section.pretrained, section.image_size)


class Corpus:
    """N image-caption pairs: those that DiffComp learns from. Everything is made when it is first asked for.

    Args:
        params: All parameters.
        images: The table of the pairs' images.
        texts: The table of the pairs with their phrases.
        cache: Where the images' features stay between runs.
    """

    def __init__(self, params: Params, images: Path = IMAGES, texts: Path = TEXTS, cache: Path = CACHE):
        self.params, self._images, self._texts, self._cache = params, images, texts, cache

    @property
    def identity(self) -> dict[str, Any]:
        """What a training over these pairs is known by."""
        hashes = {"images": sha256_file(self._images / MANIFEST), "texts": sha256_file(self._texts / MANIFEST)}
        return hashes | peers_backbone(self.params)

    @cached_property
    def encoder(self) -> ImageTextEncoder:
        """The backbone, frozen, on the device."""
        section = self.params.diffcomp
        encoder = load_image_text_encoder(section.backbone, section.pretrained, section.image_size)
        return encoder.eval().requires_grad_(False).to(device(self.params.runtime))

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The N pairs."""
        return share_of(ShardSet.open(self._texts), self.params.diffcomp.data)

    @cached_property
    def captions(self) -> list[str]:
        """N captions."""
        return [row["caption"] for row in self.rows]

    @cached_property
    def table(self) -> ImageTable:
        """The pairs' images."""
        return ImageTable(self._images, {row["image_id"] for row in self.rows})

    @cached_property
    def image_features(self) -> Tensor:
        """f_I of the pairs, float32 [N, D], L2-normalised, on the CPU."""
        return self.vectors([row["image_id"] for row in self.rows], self._cache)

    def vectors(self, ids: Sequence[str], cache: Path) -> Tensor:
        """f_I of images of the pairs' table, float32 [len(ids), D], L2-normalised, on the CPU.

        Args:
            ids: The images, some of them several times.
            cache: Where the features of these images stay between runs.
        """
        size = self.params.embedder.batch_size
        table = ImageTable(self._images, set(ids))
        chosen = hashlib.sha256("\n".join(sorted(set(ids))).encode()).hexdigest()
        identity = {"images": sha256_file(self._images / MANIFEST), "ids": chosen, "batch_size": size}
        embed_gallery(self.encoder, table, cache, identity | peers_backbone(self.params), size)
        stored = ShardSet.open(cache).table()
        vectors = stored["vector"].combine_chunks().flatten().to_numpy().reshape(-1, self.encoder.dim)
        places = {image_id: place for place, image_id in enumerate(stored["id"].to_pylist())}
        return torch.from_numpy(vectors[[places[image_id] for image_id in ids]].astype(np.float32))

    @cached_property
    def caption_features(self) -> Tensor:
        """f_T of the captions, float32 [N, D], L2-normalised, on the CPU."""
        return self.text_features(self.captions)

    def text_features(self, texts: list[str]) -> Tensor:
        """f_T of M texts, each distinct one encoded once: float32 [M, D], on the CPU."""
        encoder, distinct = self.encoder, list(dict.fromkeys(texts))
        places = {text: place for place, text in enumerate(distinct)}
        found = encode_in_batches(
            lambda batch: encoder.encode_text(encoder.tokenize(batch).to(encoder.mean.device)),
            distinct,
            self.params.retrieve.batch_size,
            "captions",
        )
        return torch.from_numpy(found)[[places[text] for text in texts]]

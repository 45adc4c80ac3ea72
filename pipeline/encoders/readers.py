"""Readers of the canonical tables for the embedding job. Pictures stream shard by shard."""

from __future__ import annotations

import dataclasses
import itertools
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from typing import Any

from pipeline.artifacts import ArtifactError, ShardSet
from pipeline.artifacts.images import EncodedImages, image_columns
from pipeline.encoders.rows import EncoderRow

Captions = dict[str, dict[str, Any]]
"""An image's rows of the pairs table by caption kind."""
Choose = Callable[[str, Captions], EncoderRow]
"""Image id and captions -> the row to encode, its picture still missing."""


def captions_by_image(pairs: ShardSet, skip: Collection[str] = ()) -> Iterator[tuple[str, Captions]]:
    """Images with their captions, in the table's order. Raises ArtifactError for a second caption of one kind."""
    rows = (row for table in pairs.shards() for row in table.to_pylist())
    for image_id, group in itertools.groupby(rows, key=lambda row: row["image_id"]):
        captions: Captions = {}
        for row in group:
            if row["caption_kind"] in captions:
                raise ArtifactError(f"{pairs.folder}: image {image_id!r} has a second {row['caption_kind']} caption ({row['pair_id']!r})")
            captions[row["caption_kind"]] = row
        if image_id not in skip:
            yield image_id, captions


class ImageReader:
    """Every image alone, with the same text: a gallery."""

    def __init__(self, images: ShardSet, text: str = ""):
        self._images, self._text = images, text

    def __len__(self) -> int:
        return self._images.rows

    def rows(self, start: int) -> Iterator[EncoderRow]:
        for image_id, encoded in itertools.islice(_stream(self._images), start, None):
            yield EncoderRow(image_id, self._text, encoded, image_id)


class PairReader:
    """One row for each image that has captions, as `choose` makes it.

    images: None for text alone. The pairs must follow the order of the images: raises
    ArtifactError naming the first image that does not.
    """

    def __init__(self, images: ShardSet | None, pairs: ShardSet, choose: Choose, skip: Collection[str] = ()):
        self._images, self._pairs, self._choose, self._skip = images, pairs, choose, skip
        ids = (image_id for table in pairs.shards(["image_id"]) for image_id in table["image_id"].to_pylist())
        self._count = sum(image_id not in skip for image_id, _ in itertools.groupby(ids))

    def __len__(self) -> int:
        return self._count

    def rows(self, start: int) -> Iterator[EncoderRow]:
        stream = _stream(self._images) if self._images else None
        for image_id, captions in itertools.islice(captions_by_image(self._pairs, self._skip), start, None):
            row = self._choose(image_id, captions)
            if stream is None:
                yield EncoderRow(row.id, row.text, None, image_id, row.note)
                continue
            encoded = next((data for found, data in stream if found == image_id), None)
            if encoded is None:
                where = f"{self._images.folder} has no such image after the ones before it"
                raise ArtifactError(f"{self._pairs.folder}: pair {row.id!r} is of image {image_id!r}, but {where}")
            yield EncoderRow(row.id, row.text, encoded, image_id, row.note)


class TripletReader:
    """One row a triplet: a column's image (none for text alone) with another column's text.

    Triplets that use an image of `skip` are left out. Raises ArtifactError naming the triplet
    whose image is not there.
    """

    def __init__(
        self, triplets: ShardSet, text: str, image: str | None = None, images: ImageStore | None = None, skip: Collection[str] = ()
    ):
        self._triplets, self._text, self._image, self._images, self._skip = triplets, text, image, images, skip

    def _kept(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        for table in self._triplets.shards(columns):
            for row in table.to_pylist():
                if row["reference_id"] not in self._skip and row["target_id"] not in self._skip:
                    yield row

    def __len__(self) -> int:
        return sum(1 for _ in self._kept(["reference_id", "target_id"])) if self._skip else self._triplets.rows

    def rows(self, start: int) -> Iterator[EncoderRow]:
        columns = ["triplet_id", "reference_id", "target_id", self._text]
        for row in itertools.islice(self._kept(columns), start, None):
            image_id = row[self._image] if self._image else ""
            try:
                encoded = self._images[image_id] if self._image else None
            except KeyError:
                triplet = f"{self._triplets.folder}: triplet {row['triplet_id']!r}"
                raise ArtifactError(f"{triplet} has {self._image} {image_id!r}, which is no image") from None
            yield EncoderRow(row["triplet_id"], row[self._text], encoded, image_id)


class ImageStore:
    """Encoded pictures by id. Knows the place of the `wanted` ids; keeps the last few shards in memory."""

    def __init__(self, images: ShardSet, wanted: Collection[str], kept_shards: int = 2):
        self._images, self._kept_shards = images, kept_shards
        self._places = {
            image_id: (number, row)
            for number, table in enumerate(images.shards(["image_id"]))
            for row, image_id in enumerate(table["image_id"].to_pylist()) if image_id in wanted
        }
        self._open: OrderedDict[int, Any] = OrderedDict()

    def __getitem__(self, image_id: str) -> bytes:
        """Raises KeyError for an id that is not there."""
        shard, row = self._places[image_id]
        if shard not in self._open:
            manifest = self._images.manifest
            alone = dataclasses.replace(manifest, shards=manifest.shards[shard : shard + 1])
            self._open[shard] = EncodedImages(ShardSet(self._images.folder, alone).table(image_columns(self._images)))
            if len(self._open) > self._kept_shards:
                self._open.popitem(last=False)
        self._open.move_to_end(shard)
        return self._open[shard][row]


def triplet_images(triplets: ShardSet) -> set[str]:
    """Ids of all references and targets."""
    return {
        image_id for table in triplets.shards(["reference_id", "target_id"]) for column in table.columns for image_id in column.to_pylist()
    }


def _stream(images: ShardSet) -> Iterator[tuple[str, bytes]]:
    for table in images.shards(image_columns(images)):
        yield from zip(table["image_id"].to_pylist(), EncodedImages(table), strict=True)

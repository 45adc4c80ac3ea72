"""Readers of the canonical tables for the embedding job. Images stream shard by shard."""

from __future__ import annotations

import bisect
import itertools
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from typing import Any

from pipeline.artifacts import ArtifactError, ShardSet
from pipeline.artifacts.images import EncodedImages, image_columns
from pipeline.encoders.embedding.rows import EncoderRow
from pipeline.text.captions import Captions, captions_by_image, training_pair

ChooseRow = Callable[[str, Captions], EncoderRow]
"""An image's id and captions -> the row to encode, without its image."""


def training_row(image_id: str, captions: Captions) -> EncoderRow:
    """The pair that an image trains with, as a row."""
    pair = training_pair(captions)
    return EncoderRow(pair["pair_id"], pair["caption"])


class ImageReader:
    """Every image alone, with the same text: a gallery."""

    def __init__(self, images: ShardSet, text: str = ""):
        self._images, self._text = images, text

    def __len__(self) -> int:
        return self._images.rows

    def rows(self, start: int) -> Iterator[EncoderRow]:
        first, skipped = _shard_of_row(self._images, start)
        stream = _stream(self._images.from_shard(first)) if first < len(self._images.manifest.shards) else ()
        for image_id, encoded in itertools.islice(stream, start - skipped, None):
            yield EncoderRow(image_id, self._text, encoded, image_id)


class PairReader:
    """One row for each image that has captions, as `choose` makes it.

    images: None for text alone. The pairs must follow the order of the images: raises
    ArtifactError naming the first image that does not.
    """

    def __init__(self, images: ShardSet | None, pairs: ShardSet, choose: ChooseRow, skip: Collection[str] = ()):
        self._images, self._pairs, self._choose, self._skip = images, pairs, choose, skip
        self._begins, self._continued = [], []  # of every shard: images begun before it, and the one that goes on in it
        self._count, last = 0, None
        for table in pairs.shards(["image_id"]):
            ids = table["image_id"].to_pylist()
            self._begins.append(self._count)
            self._continued.append(last if ids and ids[0] == last else None)
            for image_id, _ in itertools.groupby(ids):
                self._count += image_id != last and image_id not in skip
                last = image_id
        self._seen: list[tuple[int, int]] = [(0, 0)]
        """Rows and the shards of images that they were found in, so that no search begins at the first one again."""

    def __len__(self) -> int:
        return self._count

    def rows(self, start: int) -> Iterator[EncoderRow]:
        first = bisect.bisect_right(self._begins, start) - 1
        captions = captions_by_image(self._pairs, self._skip, first)
        if self._continued[first] is not None and self._continued[first] not in self._skip:
            next(captions)
        _, shard = self._seen[bisect.bisect_right(self._seen, start, key=lambda seen: seen[0]) - 1]
        stream = _ImagesInOrder(self._images, shard) if self._images else None
        for number, (image_id, found) in enumerate(captions, self._begins[first]):
            if number < start:
                continue
            row = self._choose(image_id, found)
            encoded = stream.find(image_id) if stream else None
            if stream and encoded is None:
                where = f"{self._images.folder} has no such image after the ones before it"
                raise ArtifactError(f"{self._pairs.folder}: pair {row.id!r} is of image {image_id!r}, but {where}")
            if stream and number > self._seen[-1][0] and stream.shard > self._seen[-1][1]:
                self._seen.append((number, stream.shard))
            yield EncoderRow(row.id, row.text, encoded, image_id, row.note)


class _ImagesInOrder:
    """Encoded images that are asked for in the table's order, from shard number `shard` on; only what is asked for is read."""

    def __init__(self, images: ShardSet, shard: int = 0):
        self._images, self.shard, self._next = images, shard, 0
        self._ids: dict[str, int] | None = None
        self._encoded: EncodedImages | None = None

    def find(self, image_id: str) -> bytes | None:
        """None when it does not come after the ones before."""
        while self.shard < len(self._images.manifest.shards):
            alone = self._images.one_shard(self.shard)
            if self._ids is None:
                self._ids = {found: row for row, found in enumerate(alone.table(["image_id"])["image_id"].to_pylist())}
            row = self._ids.get(image_id, -1)
            if row >= self._next:
                self._next = row + 1
                self._encoded = self._encoded or EncodedImages(alone.table(image_columns(self._images)))
                return self._encoded[row]
            self.shard, self._next, self._ids, self._encoded = self.shard + 1, 0, None, None
        return None


class TripletReader:
    """One row a triplet: a column's image (none for text alone) with another column's text.

    Triplets that use an image of `skip` are left out. Raises ArtifactError naming the triplet
    whose image is not there.
    """

    def __init__(
        self,
        triplets: ShardSet,
        text: str,
        image: str | None = None,
        images: ImageStore | None = None,
        skip: Collection[str] = (),
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
    """Encoded images by id. Knows the place of the `wanted` ids; keeps the last few shards in memory."""

    def __init__(self, images: ShardSet, wanted: Collection[str], kept_shards: int = 2):
        self._images, self._kept_shards = images, kept_shards
        self._places = {
            image_id: (number, row)
            for number, table in enumerate(images.shards(["image_id"]))
            for row, image_id in enumerate(table["image_id"].to_pylist())
            if image_id in wanted
        }
        self._open: OrderedDict[int, Any] = OrderedDict()

    def __getitem__(self, image_id: str) -> bytes:
        """Raises KeyError for an id that is not there."""
        shard, row = self._places[image_id]
        if shard not in self._open:
            self._open[shard] = EncodedImages(self._images.one_shard(shard).table(image_columns(self._images)))
            if len(self._open) > self._kept_shards:
                self._open.popitem(last=False)
        self._open.move_to_end(shard)
        return self._open[shard][row]


def triplet_images(triplets: ShardSet) -> set[str]:
    """Ids of all references and targets."""
    return {
        image_id
        for table in triplets.shards(["reference_id", "target_id"])
        for column in table.columns
        for image_id in column.to_pylist()
    }


def _shard_of_row(shards: ShardSet, row: int) -> tuple[int, int]:
    """The shard that a row is in, and the rows of those before it."""
    before = [0, *itertools.accumulate(shard.rows for shard in shards.manifest.shards)]
    shard = bisect.bisect_right(before, row) - 1
    return shard, before[shard]


def _stream(images: ShardSet) -> Iterator[tuple[str, bytes]]:
    for table in images.shards(image_columns(images)):
        yield from zip(table["image_id"].to_pylist(), EncodedImages(table), strict=True)

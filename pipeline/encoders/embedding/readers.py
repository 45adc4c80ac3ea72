"""Readers of the canonical tables for the embedding job. Images stream shard by shard."""

from __future__ import annotations

import bisect
import itertools
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from pipeline.artifacts import ArtifactError, ShardSet
from pipeline.artifacts.decoding import Treatment
from pipeline.artifacts.images import EncodedImages, image_columns, treatment_of
from pipeline.config import PriorDataParams
from pipeline.encoders.embedding.rows import EncoderRow, Reader
from pipeline.text.captions import Captions, captions_by_image, training_kinds


class PairChoice(NamedTuple):
    """Which rows are encoded of an image that has captions."""

    rows: Callable[[str, Captions], list[EncoderRow]]
    """An image's id and captions -> its rows, without the image."""
    row_count: Callable[[str, Counter[str]], int]
    """An image's id and the number of its captions of each kind -> how many rows those are."""


def training_rows(data: PriorDataParams, texts: bool = True) -> PairChoice:
    """The pairs that an image trains Stage 1 with: see `training_kinds`.

    Args:
        data: Which those are.
        texts: Whether their texts are seen beside the image.
    """

    def rows(image_id: str, captions: Captions) -> list[EncoderRow]:
        chosen = [pair for kind in training_kinds(image_id, captions, data) for pair in captions[kind]]
        return [EncoderRow(pair["pair_id"], pair["caption"] if texts else "") for pair in chosen]

    return PairChoice(rows, lambda image_id, kinds: sum(kinds[kind] for kind in training_kinds(image_id, kinds, data)))


class ImageReader:
    """Every image alone, with the same text: a gallery.

    Args:
        images: A table of `schemas.IMAGES` or `schemas.IMAGE_FILES`.
        text: What stands beside every image.
    """

    def __init__(self, images: ShardSet, text: str = ""):
        self._images, self._text = images, text

    def __len__(self) -> int:
        return self._images.rows

    def rows(self, start: int) -> Iterator[EncoderRow]:
        """See `Reader.rows`."""
        first, skipped = _shard_of_row(self._images, start)
        treatment = treatment_of(self._images)
        stream = _stream(self._images.from_shard(first)) if first < len(self._images.manifest.shards) else ()
        for image_id, encoded in itertools.islice(stream, start - skipped, None):
            yield EncoderRow(image_id, self._text, encoded, image_id, treatment=treatment)


class PairReader:
    """The chosen rows of every image that has captions. The pairs follow the order of the images.

    Args:
        images: The images' table; None for text alone.
        pairs: A table of `schemas.PAIRS`.
        choice: Makes an image's rows of its captions.
        skip: Ids of images that are left out.

    Raises:
        ArtifactError: While reading: an image is missing, or stands before the one of the pair before; it is named.
    """

    def __init__(self, images: ShardSet | None, pairs: ShardSet, choice: PairChoice, skip: Collection[str] = ()):
        self._images, self._pairs, self._choice, self._skip = images, pairs, choice, skip
        self._begun_before: list[int] = []
        """Of every shard of the pairs: how many rows are of images that begin before it."""
        self._continues: list[str | None] = []
        """Of every shard of the pairs: the image whose captions began in the one before it."""
        self._count = self._index_shards()
        self._seen: list[tuple[int, int]] = [(0, 0)]
        """Rows and the shards of images that they were found in, so that no search begins at the first one again."""

    def _index_shards(self) -> int:
        """Note where images begin; the number of all rows of those that are not skipped."""
        count, last, kinds = 0, None, Counter[str]()
        for table in self._pairs.shards(["image_id", "caption_kind"]):
            ids = table["image_id"].to_pylist()
            self._continues.append(last if ids and ids[0] == last else None)
            for image_id, kind in zip(ids, table["caption_kind"].to_pylist(), strict=True):
                if image_id != last:
                    count, kinds, last = count + self._rows_of(last, kinds), Counter(), image_id
                    self._fill_up(count)
                kinds[kind] += 1
        self._fill_up(count + self._rows_of(last, kinds))
        return count + self._rows_of(last, kinds)

    def _fill_up(self, count: int) -> None:
        """So many rows lie before all shards that are known by now and not yet noted."""
        self._begun_before += [count] * (len(self._continues) - len(self._begun_before))

    def _rows_of(self, image_id: str | None, kinds: Counter[str]) -> int:
        if image_id is None or image_id in self._skip:
            return 0
        return self._choice.row_count(image_id, kinds)

    def __len__(self) -> int:
        return self._count

    def rows(self, start: int) -> Iterator[EncoderRow]:
        """See `Reader.rows`."""
        find = self._finder(start)
        treatment = treatment_of(self._images) if self._images else "shown"
        for number, image_id, chosen in self._chosen(start):
            encoded = find(number, image_id, chosen[0].id) if find else None
            for row in chosen[max(0, start - number) :]:
                yield EncoderRow(row.id, row.text, encoded, image_id, row.note, treatment)

    def _chosen(self, start: int) -> Iterator[tuple[int, str, list[EncoderRow]]]:
        """Images with their rows and the number of the first one, from the image of row `start` on.

        Only the shards that hold them are read.
        """
        first = bisect.bisect_right(self._begun_before, start) - 1
        captions = captions_by_image(self._pairs, self._skip, first)
        if self._continues[first] is not None and self._continues[first] not in self._skip:
            next(captions)
        number = self._begun_before[first]
        for image_id, found in captions:
            rows = self._choice.rows(image_id, found)
            number += len(rows)
            if rows and number > start:
                yield number - len(rows), image_id, rows

    def _finder(self, start: int) -> Callable[[int, str, str], bytes] | None:
        """What finds the encoded image of a row, given its number, its image's id and its own; None: text alone."""
        if self._images is None:
            return None
        _, shard = self._seen[bisect.bisect_right(self._seen, start, key=lambda seen: seen[0]) - 1]
        folder, stream = self._images.folder, _ImagesInOrder(self._images, shard)

        def find(number: int, image_id: str, row_id: str) -> bytes:
            encoded = stream.find(image_id)
            if encoded is None:
                where = f"{folder} has no such image after the ones before it"
                raise ArtifactError(f"{self._pairs.folder}: pair {row_id!r} is of image {image_id!r}, but {where}")
            if number > self._seen[-1][0] and stream.shard > self._seen[-1][1]:
                self._seen.append((number, stream.shard))
            return encoded

        return find


class _ImagesInOrder:
    """Encoded images that are looked up in the table's order, from one shard on. Only what is looked up is read."""

    def __init__(self, images: ShardSet, shard: int = 0):
        self._images, self.shard, self._next = images, shard, 0
        self._ids: dict[str, int] | None = None
        self._encoded: EncodedImages | None = None

    def find(self, image_id: str) -> bytes | None:
        """An encoded image; None when it does not come after the ones before."""
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


class RowIds:
    """The ids of a reader's rows, read whenever they are gone through."""

    def __init__(self, reader: Reader):
        self._reader = reader

    def __len__(self) -> int:
        return len(self._reader)

    def __iter__(self) -> Iterator[str]:
        return (row.id for row in self._reader.rows(0))


class TripletReader:
    """One row a triplet: one column's image with another column's text. References with instructions are queries.

    Args:
        triplets: A table of `schemas.TRIPLETS`.
        text: The column of the text; None: the image alone.
        image: The column of the image's id; None for text alone.
        images: Holds the images of that column.
        skip: Ids of images whose triplets are left out.

    Raises:
        ArtifactError: While reading: an image is missing; its triplet is named.
    """

    def __init__(
        self,
        triplets: ShardSet,
        text: str | None,
        image: str | None = None,
        images: ImageStore | None = None,
        skip: Collection[str] = (),
    ):
        self._triplets, self._text, self._image, self._images, self._skip = triplets, text, image, images, skip
        self._is_query = image == "reference_id" and text == "instruction"

    def _kept(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        """The triplets that are not left out."""
        for table in self._triplets.shards(columns):
            for row in table.to_pylist():
                if row["reference_id"] not in self._skip and row["target_id"] not in self._skip:
                    yield row

    def __len__(self) -> int:
        return sum(1 for _ in self._kept(["reference_id", "target_id"])) if self._skip else self._triplets.rows

    def rows(self, start: int) -> Iterator[EncoderRow]:
        """See `Reader.rows`."""
        columns = ["triplet_id", "reference_id", "target_id", *([self._text] if self._text else [])]
        for row in itertools.islice(self._kept(columns), start, None):
            text = row[self._text] if self._text else ""
            if self._image is None or self._images is None:
                yield EncoderRow(row["triplet_id"], text)
                continue
            image_id = row[self._image]
            try:
                encoded = self._images[image_id]
            except KeyError:
                triplet = f"{self._triplets.folder}: triplet {row['triplet_id']!r}"
                raise ArtifactError(f"{triplet} has {self._image} {image_id!r}, which is no image") from None
            treatment, is_query = self._images.treatment, self._is_query
            yield EncoderRow(row["triplet_id"], text, encoded, image_id, treatment=treatment, is_query=is_query)


class ImageStore:
    """Encoded images by id, whose last few shards stay in memory.

    Args:
        images: The images' table.
        wanted: The ids that may be looked up.
        kept_shards: Shards in memory.
    """

    def __init__(self, images: ShardSet, wanted: Collection[str], kept_shards: int = 2):
        self._images, self._kept_shards = images, kept_shards
        self.treatment: Treatment = treatment_of(images)
        """How the images are decoded."""
        self._places = {
            image_id: (number, row)
            for number, table in enumerate(images.shards(["image_id"]))
            for row, image_id in enumerate(table["image_id"].to_pylist())
            if image_id in wanted
        }
        self._open: OrderedDict[int, Any] = OrderedDict()

    def __getitem__(self, image_id: str) -> bytes:
        """An encoded image. Raises KeyError for an id that is not there."""
        shard, row = self._places[image_id]
        if shard not in self._open:
            self._open[shard] = EncodedImages(self._images.one_shard(shard).table(image_columns(self._images)))
            if len(self._open) > self._kept_shards:
                self._open.popitem(last=False)
        self._open.move_to_end(shard)
        return self._open[shard][row]


def triplet_images(triplets: ShardSet) -> set[str]:
    """The ids of all references and targets of a table of `schemas.TRIPLETS`."""
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
    """Ids and encoded images, shard by shard."""
    for table in images.shards(image_columns(images)):
        yield from zip(table["image_id"].to_pylist(), EncodedImages(table), strict=True)

"""The encoded images of a table.

It holds them (`schemas.IMAGES`), names their files (`schemas.IMAGE_FILES`) or the archives that they lie in
(`schemas.IMAGE_MEMBERS`).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pipeline.artifacts.archives import ArchiveReader, Place
from pipeline.artifacts.atomic import ArtifactError, sha256_file
from pipeline.artifacts.columns import map_bytes
from pipeline.artifacts.decoding import ImageError, Treatment, decode
from pipeline.artifacts.mapped import scratch
from pipeline.artifacts.shards import MANIFEST, ShardSet

IN_MEMORY = 2 * 2**30
"""Encoded images of more bytes than this do not stay in memory."""


def image_columns(images: ShardSet) -> list[str]:
    """The columns that `EncodedImages` needs of this table, the ids in front."""
    if "bytes" not in images.columns:
        return ["image_id", "path", "crop"]
    return ["image_id", "bytes", *(Place._fields if "archive" in images.columns else ())]


def treatment_of(images: ShardSet) -> Treatment:
    """How a table's images are decoded.

    A table that names files is a public benchmark's. They are read as the published evaluations read them.
    """
    return "shown" if "bytes" in images.columns else "stored"


def chosen_images(
    images: ShardSet, only: Collection[str], in_memory: int = IN_MEMORY
) -> tuple[list[str], Sequence[bytes] | EncodedImages]:
    """Some of a table's images, of which other processes may have what is returned.

    Parquet gives no single rows in a random order. So where the table holds more than `in_memory` bytes of images, the
    chosen ones are laid out in a scratch folder beside it (`pipeline.artifacts.columns`).

    Args:
        images: The table.
        only: Ids of the images; those that the table lacks are passed over.
        in_memory: In bytes.

    Returns:
        The ids that were found, in the table's order, and their encoded images.
    """
    wanted = pa.array(only, pa.string())

    def chosen(columns: list[str]) -> Iterator[pa.Table]:
        for table in images.shards(columns):
            yield table.filter(pc.is_in(table["image_id"], wanted))

    columns = image_columns(images)
    size = sum((images.folder / shard.name).stat().st_size for shard in images.manifest.shards)
    if columns != ["image_id", "bytes"] or size <= in_memory:
        table = pa.concat_tables(chosen(columns))
        return table["image_id"].to_pylist(), EncodedImages(table)
    ids = [image_id for table in chosen(["image_id"]) for image_id in table["image_id"].to_pylist()]
    made_of = {
        "images": sha256_file(images.folder / MANIFEST),
        "chosen": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
    }
    contents = (content for table in chosen(columns) for content in EncodedImages(table))
    return ids, map_bytes(scratch(images.folder), made_of, lambda: contents)


class EncodedImages:
    """A table's images by row, read when asked for; b"" for a row without one.

    Raises ArtifactError naming a file that is gone, or an archive that has changed.
    """

    def __init__(self, table: pa.Table):
        here = "bytes" in table.column_names
        self._bytes = table["bytes"] if here else None
        self._files: tuple[pa.ChunkedArray, ...] = () if here else (table["path"], table["crop"])
        self._places = [table[name] for name in Place._fields] if "archive" in table.column_names else []
        self._archives = ArchiveReader()
        self._rows = table.num_rows

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[bytes]:
        return (self[row] for row in range(self._rows))

    def __getitem__(self, row: int) -> bytes:
        if self._bytes is not None:
            content = self._bytes[row].as_py()
            if content is None and self._places and self._places[0][row].is_valid:
                return self._archives.read(Place(*(column[row].as_py() for column in self._places)))
            return content or b""
        paths, crops = self._files
        path, crop = Path(paths[row].as_py()), crops[row].as_py()
        if not path.is_file():
            raise ArtifactError(f"{path}: the image is gone since the stage prepare named it")
        content = path.read_bytes()
        return _cut_out(content, crop) if crop else content


def _cut_out(content: bytes, crop: tuple[int, int, int, int]) -> bytes:
    """The part of an image, in the middle of a black square, as PNG; what cannot be decoded stays as it is."""
    try:
        part = decode(content, treatment="stored").crop(crop)  # as the annotations count pixels
    except ImageError:
        return content
    side = max(part.size)
    square = Image.new("RGB", (side, side))
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    encoded = io.BytesIO()
    square.save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()

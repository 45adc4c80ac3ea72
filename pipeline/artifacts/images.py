"""The encoded images of a table.

It holds them (`schemas.IMAGES`), names their files (`schemas.IMAGE_FILES`) or the archives that they lie in
(`schemas.IMAGE_MEMBERS`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from PIL import Image

from pipeline.artifacts.archives import ArchiveReader, Place
from pipeline.artifacts.atomic import ArtifactError
from pipeline.artifacts.decoding import ImageError, Treatment, decode
from pipeline.artifacts.shards import ShardSet


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

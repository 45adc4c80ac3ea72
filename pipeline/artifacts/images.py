"""Encoded pictures of an images table, whether it holds them (`schemas.IMAGES`) or names their files (`schemas.IMAGE_FILES`)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.artifacts.files import ArtifactError
from pipeline.artifacts.shards import ShardSet


def image_columns(images: ShardSet) -> list[str]:
    """The columns that `EncodedImages` needs of this table, the ids in front."""
    held = "bytes" in pq.read_schema(images.folder / images.manifest.shards[0].name).names
    return ["image_id", "bytes"] if held else ["image_id", "path", "crop"]


class EncodedImages:
    """A table's pictures by row, read when asked for; b"" for a row without one.

    Raises ArtifactError naming a file that is gone.
    """

    def __init__(self, table: pa.Table):
        self._bytes = table["bytes"] if "bytes" in table.column_names else None
        self._files = None if self._bytes is not None else (table["path"], table["crop"])
        self._rows = table.num_rows

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[bytes]:
        return (self[row] for row in range(self._rows))

    def __getitem__(self, row: int) -> bytes:
        if self._bytes is not None:
            return self._bytes[row].as_py() or b""
        path, crop = Path(self._files[0][row].as_py()), self._files[1][row].as_py()
        if not path.is_file():
            raise ArtifactError(f"{path}: the picture is gone since the stage prepare named it")
        content = path.read_bytes()
        return _cut_out(content, crop) if crop else content


def _cut_out(content: bytes, crop: list[int]) -> bytes:
    """The part of a picture, in the middle of a black square, as PNG; what cannot be decoded stays as it is."""
    try:
        part = Image.open(io.BytesIO(content)).convert("RGB").crop(crop)
    except (OSError, SyntaxError):
        return content
    side = max(part.size)
    square = Image.new("RGB", (side, side))
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    encoded = io.BytesIO()
    square.save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()

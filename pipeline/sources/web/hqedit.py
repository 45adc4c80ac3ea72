"""HQ-Edit as its hub release is laid out.

Parquet files hold both images, both descriptions and the edit in both directions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.artifacts.ids import id_of
from pipeline.artifacts.texts import clean_text
from pipeline.sources.errors import SourceError
from pipeline.sources.files import files_below
from pipeline.sources.web.passed_over import PassedOver
from pipeline.sources.web.samples import Sample

TEXTS = ("input", "edit", "inverse_edit", "output")
IMAGES = ("input_image", "output_image")
DIRECTIONS = ("edit", "inverse")
BATCH = 64


def hqedit(folder: Path, name: str) -> Iterator[tuple[list[Sample], list[dict[str, Any]]]]:
    """One pair of images after the other, with its two triplets: the edit and its inverse, where that is told.

    After each file come those that are not told, counted.

    Raises:
        SourceError: A file is damaged or lacks a column; names the file.
    """
    for path in files_below(folder, (".parquet",)):
        try:
            file = pq.ParquetFile(path)
            missing = [column for column in (*TEXTS, *IMAGES) if column not in file.schema_arrow.names]
            if missing:
                raise SourceError(f"{path}: there is no column {missing[0]!r}")
            wrong = [column for column in TEXTS if not _is_text(file.schema_arrow.field(column).type)]
            if wrong:
                raise SourceError(f"{path}: column {wrong[0]!r} is {file.schema_arrow.field(wrong[0]).type}, not text")
            rows = (row for batch in file.iter_batches(BATCH, columns=[*TEXTS, *IMAGES]) for row in batch.to_pylist())
            within = id_of(name, path.relative_to(folder).as_posix(), ".parquet")
            untold = PassedOver(within)
            for number, row in enumerate(rows):
                samples, triplets = _edit(f"{within}/{number:06d}", row)
                for _ in range(len(DIRECTIONS) - len(triplets)):
                    untold.add(f"{number:06d}", "an edit without an instruction or without a description of its target")
                yield samples, triplets
            yield list(untold.samples()), []
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            raise SourceError(f"{path}: not readable as Parquet ({str(error).splitlines()[0]})") from None


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _edit(edit_id: str, row: dict[str, Any]) -> tuple[list[Sample], list[dict[str, Any]]]:
    before, after = (Sample(f"{edit_id}/{side}", _bytes(row[f"{side}_image"])) for side in ("input", "output"))
    directions = (
        (before, after, row["edit"], row["output"]),
        (after, before, row["inverse_edit"], row["input"]),
    )
    triplets = [
        {
            "triplet_id": f"{edit_id}/{direction}",
            "reference_id": reference.image_id,
            "target_id": target.image_id,
            "instruction": clean_text(instruction),
            "target_description": clean_text(description),
            "shared_concept": "",
        }
        for direction, (reference, target, instruction, description) in zip(DIRECTIONS, directions, strict=True)
        if clean_text(instruction or "") and clean_text(description or "")
    ]
    return [before, after], triplets


def _bytes(image: Any) -> bytes:
    """`datasets` stores an image as {bytes, path}; b"" for what is neither that nor bytes."""
    content = image.get("bytes") if isinstance(image, dict) else image
    return content if isinstance(content, bytes) else b""

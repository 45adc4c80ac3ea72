"""The public benchmarks as canonical tables: images by path, queries, and CIRCO's aspects."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.artifacts import schemas
from pipeline.artifacts.decoding import LIMITS, Limits, measure
from pipeline.config import DataParams
from pipeline.sources.benchmarks.annotations import Annotations, BenchmarkError, Crop
from pipeline.sources.benchmarks.reader import Selection
from pipeline.sources.benchmarks.registry import READERS

Facts = tuple[str, int, int]
"""A file's SHA-256, width and height."""

NAMED = 3
"""So many missing images are named."""
WHOLE = Limits(jpeg_pixels=LIMITS.pixels)
"""No image that would be reduced while it is decoded: boxes count whole pixels."""


def listed_annotations(params: DataParams) -> Iterator[tuple[Selection, str, Annotations]]:
    """Selection, split and annotations of every gallery of the public benchmarks in `data.benchmarks`."""
    for name, reader in READERS.items():
        if name not in params.benchmarks:
            continue
        selection = reader.selection(params)
        for split in selection.splits:
            for found in reader.read(selection.folder, split, selection.parts):
                yield selection, split, found


def public_tables(params: DataParams) -> Iterator[tuple[str, pa.Table, dict[str, Any]]]:
    """Every table of the public benchmarks in `data.benchmarks`.

    Args:
        params: The section `data`.

    Yields:
        The folder below data/benchmarks, the table, and the identity of what made it.

    Raises:
        BenchmarkError: An annotation is wrong, images are missing, or nothing of what is listed could be
            scored here.
    """
    listed = list(listed_annotations(params))
    if listed and set(params.benchmarks) <= set(READERS) and not any(found.has_targets for _, _, found in listed):
        names = ", ".join(found.name for _, _, found in listed)
        raise BenchmarkError(
            f"data.benchmarks: the targets of {names} are private, so nothing can be scored; list a validation split"
        )
    known: dict[Path, Facts] = {}
    for selection, split, found in listed:
        made_by = {"benchmark": found.benchmark}
        yield f"{found.name}/images", images_table(selection.folder, found, known), made_by
        order = selection.caption_order
        identity = made_by | {"split": split, "wordings": order, "private_targets": not found.has_targets}
        yield f"{found.name}/queries", queries_table(found, order), identity
        if any(query.aspects for query in found.queries):
            rows = [{"query_id": query.query_id, "aspects": list(query.aspects)} for query in found.queries]
            yield f"{found.name}/aspects", pa.Table.from_pylist(rows, schema=schemas.ASPECTS), identity


def queries_table(annotations: Annotations, caption_order: str = "") -> pa.Table:
    """The queries as `schemas.QUERIES`, in the order of the annotations.

    Args:
        annotations: The queries of one gallery.
        caption_order: How several captions become one text (see `Selection`). Several modifications of a
            row are then wordings of one query.
    """
    reader = READERS[annotations.benchmark]
    rows = [
        {
            "query_id": query.query_id,
            "reference_id": query.reference,
            "modifications": list(reader.modifications(query.captions, caption_order)),
            "target_ids": list(query.targets),
            "subset_ids": list(query.subset),
            "category": query.category,
            "shared_concept": query.shared_concept,
        }
        for query in annotations.queries
    ]
    return pa.Table.from_pylist(rows, schema=schemas.QUERIES)


def images_table(folder: Path, annotations: Annotations, known: dict[Path, Facts] | None = None) -> pa.Table:
    """The images of the gallery as `schemas.IMAGE_FILES`: path relative to the working folder, SHA-256 and size.

    Args:
        folder: The benchmark's folder.
        annotations: The queries of one gallery.
        known: Keeps what was read of a file, because two splits of a benchmark may share their images.

    Raises:
        BenchmarkError: Images are missing or cannot be read; says how many and names the first.
    """
    known = {} if known is None else known
    reader = READERS[annotations.benchmark]
    gallery = reader.gallery(folder, annotations)
    files = reader.image_files(folder, gallery)
    missing = [image_id for image_id in gallery if image_id not in files]
    if missing:
        first = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        raise BenchmarkError(
            f"{annotations.name}: {len(missing)} of {len(gallery)} images are missing below {folder} ({first}); "
            f"{reader.images_source}"
        )
    rows, unreadable = [], []
    for image_id in gallery:
        try:
            rows.append(_image_row(image_id, files[image_id], annotations.crops.get(image_id), known))
        except (OSError, ValueError) as error:
            unreadable.append(f"{files[image_id]} ({str(error).splitlines()[0]})")
    if unreadable:
        raise BenchmarkError(
            f"{annotations.name}: {len(unreadable)} of {len(gallery)} images cannot be read, "
            f"the first is {unreadable[0]}"
        )
    return pa.Table.from_pylist(rows, schema=schemas.IMAGE_FILES)


def _image_row(image_id: str, path: Path, crop_within: Crop | None, known: dict[Path, Facts]) -> dict[str, Any]:
    if path not in known:
        known[path] = _facts(path)
    digest, width, height = known[path]
    crop = crop_within(width, height) if crop_within else None
    if crop and (crop[2] <= crop[0] or crop[3] <= crop[1]):
        raise ValueError(f"the box of {image_id} lies outside of the image")
    size = (crop[2] - crop[0], crop[3] - crop[1]) if crop else (width, height)
    return {
        "image_id": image_id,
        "path": _relative(path),
        "crop": crop,
        "sha256": digest,
        "width": size[0],
        "height": size[1],
    }


def _facts(path: Path) -> Facts:
    content = path.read_bytes()
    return hashlib.sha256(content).hexdigest(), *measure(content, "stored", WHOLE)


def _relative(path: Path) -> str:
    return Path(os.path.relpath(path)).as_posix()

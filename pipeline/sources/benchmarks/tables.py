"""The public benchmarks as canonical tables: images by path, queries, and CIRCO's aspects."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.artifacts import schemas
from pipeline.artifacts.images import open_image
from pipeline.config import DataParams
from pipeline.sources.benchmarks import circo, cirr, fashioniq, genecis
from pipeline.sources.benchmarks.annotations import AnnotatedQuery, Annotations, BenchmarkError

Facts = tuple[str, int, int]
"""A file's SHA-256, width and height."""

NAMED = 3
"""So many missing images are named."""


def listed_annotations(params: DataParams) -> Iterator[tuple[Path, str, Annotations]]:
    """(folder, split, annotations) of every public benchmark in `data.benchmarks`, its splits and parts side by side."""
    if "fashioniq" in params.benchmarks:
        for split in params.fashioniq.splits:
            for found in fashioniq.read(Path(params.fashioniq.folder), split, tuple(params.fashioniq.categories)):
                yield Path(params.fashioniq.folder), split, found
    for reader, section in ((cirr, params.cirr), (circo, params.circo)):
        if reader.NAME in params.benchmarks:
            for split in section.splits:
                yield Path(section.folder), split, reader.read(Path(section.folder), split)[0]
    if "genecis" in params.benchmarks:
        for found in genecis.read(Path(params.genecis.folder), "val", tuple(params.genecis.tasks)):
            yield Path(params.genecis.folder), "val", found


def public_tables(params: DataParams) -> Iterator[tuple[str, pa.Table, dict[str, Any]]]:
    """(folder below data/benchmarks, table, identity) of every table of the listed public benchmarks.

    Raises BenchmarkError naming the annotation that is wrong, or the images that are missing, and when
    nothing of what is listed could be scored here.
    """
    listed = list(listed_annotations(params))
    if "emoji_cir" not in params.benchmarks and not any(found.has_targets for _, _, found in listed):
        names = ", ".join(found.name for _, _, found in listed)
        raise BenchmarkError(
            f"data.benchmarks: the targets of {names} are private, so nothing can be scored; list a validation split"
        )
    known: dict[Path, Facts] = {}
    for folder, split, found in listed:
        made_by = {"benchmark": found.benchmark}
        yield f"{found.name}/images", images_table(folder, found, known), made_by
        order = params.fashioniq.caption_order if found.benchmark == fashioniq.NAME else ""
        identity = made_by | {"split": split, "wordings": order, "private_targets": not found.has_targets}
        yield f"{found.name}/queries", queries_table(found, order), identity
        if any(query.aspects for query in found.queries):
            rows = [{"query_id": query.query_id, "aspects": list(query.aspects)} for query in found.queries]
            yield f"{found.name}/aspects", pa.Table.from_pylist(rows, schema=schemas.ASPECTS), identity


def queries_table(annotations: Annotations, caption_order: str = "") -> pa.Table:
    """The queries in the annotations' order. FashionIQ's two captions are joined; several modifications are wordings of one query."""

    def modifications(query: AnnotatedQuery) -> list[str]:
        return list(fashioniq.wordings(query.captions, caption_order) if caption_order else query.captions)

    rows = [
        {
            "query_id": query.query_id,
            "reference_id": query.reference,
            "modifications": modifications(query),
            "target_ids": list(query.targets),
            "subset_ids": list(query.subset),
            "category": query.category,
            "shared_concept": query.shared_concept,
        }
        for query in annotations.queries
    ]
    return pa.Table.from_pylist(rows, schema=schemas.QUERIES)


def images_table(folder: Path, annotations: Annotations, known: dict[Path, Facts] | None = None) -> pa.Table:
    """Every image of the gallery, by path relative to the working folder, with its SHA-256 and size.

    `known` keeps what was read of a file: two splits of a benchmark may share their images.
    """
    known = {} if known is None else known
    reader = {"fashioniq": fashioniq, "cirr": cirr, "circo": circo, "genecis": genecis}[annotations.benchmark]
    gallery = annotations.gallery or _with_the_named(circo.gallery_there(folder), annotations)
    files = reader.image_files(folder, gallery)
    missing = [image_id for image_id in gallery if image_id not in files]
    if missing:
        first = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        raise BenchmarkError(
            f"{annotations.name}: {len(missing)} of {len(gallery)} images are missing below {folder} ({first}); {reader.IMAGES_FROM}"
        )
    rows, unreadable = [], []
    for image_id in gallery:
        try:
            rows.append(_image_row(image_id, files[image_id], annotations.boxes.get(image_id), known))
        except (OSError, ValueError) as error:
            unreadable.append(f"{files[image_id]} ({str(error).splitlines()[0]})")
    if unreadable:
        raise BenchmarkError(
            f"{annotations.name}: {len(unreadable)} of {len(gallery)} images cannot be read, the first is {unreadable[0]}"
        )
    return pa.Table.from_pylist(rows, schema=schemas.IMAGE_FILES)


def _with_the_named(there: tuple[str, ...], annotations: Annotations) -> tuple[str, ...]:
    """The images that are there and those that the queries need, which may be missing."""
    named = {image_id for query in annotations.queries for image_id in (query.reference, *query.targets)}
    return tuple(str(number) for number in sorted(int(image_id) for image_id in {*there, *named}))


def _image_row(image_id: str, path: Path, box: tuple[float, ...] | None, known: dict[Path, Facts]) -> dict[str, Any]:
    if path not in known:
        known[path] = _facts(path)
    digest, width, height = known[path]
    crop = genecis.crop_of(box, width, height) if box else None
    if crop and (crop[2] <= crop[0] or crop[3] <= crop[1]):
        raise ValueError(f"the box of {image_id} lies outside of the picture")
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
    with open_image(content) as image:
        return hashlib.sha256(content).hexdigest(), image.width, image.height


def _relative(path: Path) -> str:
    return Path(os.path.relpath(path)).as_posix()

"""FashionIQ: `captions/cap.<category>.<split>.json`, `image_splits/split.<category>.<split>.json`, `images/`.

Each category has its own gallery, the *original split* that the image_splits files list. The
annotations give queries no name, so their ids are `<category>/<row>`, rows counted from 0.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.sources.benchmarks.annotations import (
    AnnotatedQuery,
    Annotations,
    BenchmarkError,
    check_split,
    read_names,
    read_rows,
)

NAME, SPLITS = "fashioniq", ("val", "test")
CATEGORIES = ("dress", "shirt", "toptee")
ANNOTATIONS_FROM = "FashionIQ's annotations are at https://github.com/XiaoxiaoGuo/fashion-iq"
IMAGES_FROM = "FashionIQ's pictures are linked from https://github.com/XiaoxiaoGuo/fashion-iq; they belong into images/ under their ASIN"


def read(folder: Path, split: str, parts: tuple[str, ...] = CATEGORIES) -> list[Annotations]:
    """One entry a category."""
    check_split(NAME, split, SPLITS)
    return [_read_category(folder, split, category) for category in parts]


def _read_category(folder: Path, split: str, category: str) -> Annotations:
    gallery = read_names(folder / "image_splits" / f"split.{category}.{split}.json", ANNOTATIONS_FROM)
    queries = []
    for number, row in enumerate(read_rows(folder / "captions" / f"cap.{category}.{split}.json", ANNOTATIONS_FROM)):
        targets = (row.text("target"),) if "target" in row else ()
        captions = row.texts("captions")
        if len(captions) != 2:
            raise BenchmarkError(f"{row.where}: {len(captions)} captions, not 2")
        query_id, reference = f"{category}/{number}", row.text("candidate")
        queries.append(
            AnnotatedQuery(query_id, reference, captions, targets, category=category, shared_concept=category)
        )
    return Annotations(NAME, f"{NAME}_{category}_{split}", tuple(queries), gallery)


def wordings(captions: tuple[str, ...], order: str) -> tuple[str, ...]:
    """Both captions joined by "and" in the given order (forward | reversed), or both orders.

    Three rows of the real files have one empty caption; the other then stands alone.
    """
    parts = [text for text in (caption.strip(".?, \n") for caption in captions) if text]
    forward, backward = " and ".join(parts), " and ".join(reversed(parts))
    return {"forward": (forward,), "reversed": (backward,), "both": (forward, backward)}[order]


def image_files(folder: Path, image_ids: tuple[str, ...]) -> dict[str, Path]:
    """The images that are there, whatever their format."""
    there = {
        path.stem: path
        for path in sorted((folder / "images").glob("*"))
        if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    }
    return {image_id: there[image_id] for image_id in image_ids if image_id in there}

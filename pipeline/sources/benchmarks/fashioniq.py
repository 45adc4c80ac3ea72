"""FashionIQ: `captions/cap.<category>.<split>.json`, `image_splits/split.<category>.<split>.json`, `images/`.

Each category has its own gallery, the *original split* that the image_splits files list. The
annotations give queries no name, so their ids are `<category>/<row>`, rows counted from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.config import DataParams
from pipeline.sources.benchmarks.annotations import AnnotatedQuery, Annotations, BenchmarkError, read_names, read_rows
from pipeline.sources.benchmarks.reader import BenchmarkReader, Selection

CATEGORIES = ("dress", "shirt", "toptee")


class FashionIQReader(BenchmarkReader):
    """One gallery a category; a query has two captions."""

    name = "fashioniq"
    splits = ("val", "test")
    annotations_source = "FashionIQ's annotations are at https://github.com/XiaoxiaoGuo/fashion-iq"
    images_source = (
        "FashionIQ's images are linked from https://github.com/XiaoxiaoGuo/fashion-iq; "
        "they belong into images/ under their ASIN"
    )

    def selection(self, params: DataParams) -> Selection:
        section = params.fashioniq
        return Selection(Path(section.folder), section.splits, section.categories, section.caption_order)

    def _read(self, folder: Path, split: str, parts: Sequence[str]) -> list[Annotations]:
        return [self._read_category(folder, split, category) for category in parts or CATEGORIES]

    def _read_category(self, folder: Path, split: str, category: str) -> Annotations:
        where, suffix = self.annotations_source, f"{category}.{split}.json"
        gallery = read_names(folder / "image_splits" / f"split.{suffix}", where)
        queries = []
        for number, row in enumerate(read_rows(folder / "captions" / f"cap.{suffix}", where)):
            targets = (row.text("target"),) if "target" in row else ()
            captions = row.texts("captions")
            if len(captions) != 2:
                raise BenchmarkError(f"{row.where}: {len(captions)} captions, not 2")
            query_id, reference = f"{category}/{number}", row.text("candidate")
            queries.append(
                AnnotatedQuery(query_id, reference, captions, targets, category=category, shared_concept=category)
            )
        return Annotations(self.name, f"{self.name}_{category}_{split}", tuple(queries), gallery)

    def image_files(self, folder: Path, image_ids: Sequence[str]) -> dict[str, Path]:
        """Whatever their format."""
        there = {
            path.stem: path
            for path in sorted((folder / "images").glob("*"))
            if path.suffix.lower() in (".jpg", ".jpeg", ".png")
        }
        return {image_id: there[image_id] for image_id in image_ids if image_id in there}

    def modifications(self, captions: Sequence[str], caption_order: str) -> tuple[str, ...]:
        """The captions as one text in the order asked for, or in both orders: two wordings of one query."""
        return join_captions(captions, caption_order) if caption_order else tuple(captions)


def join_captions(captions: Sequence[str], order: str) -> tuple[str, ...]:
    """Both captions joined by "and" in the given order (forward | reversed), or both orders.

    Three rows of the real files have one empty caption; the other then stands alone.
    """
    parts = [text for text in (caption.strip(".?, \n") for caption in captions) if text]
    forward, backward = " and ".join(parts), " and ".join(reversed(parts))
    return {"forward": (forward,), "reversed": (backward,), "both": (forward, backward)}[order]

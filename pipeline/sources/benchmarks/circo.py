"""CIRCO: `annotations/{val,test}.json` over the images of COCO 2017 unlabeled.

Image ids are COCO's numbers as texts. The gallery is all that COCO's own
`COCO2017_unlabeled/annotations/image_info_unlabeled2017.json` lists, in its order. Without that file
the annotations do not say what the gallery is, and a run takes the images in the folder, by number.
Targets of the test split are private: its results come from the server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import DataParams
from pipeline.sources.benchmarks.annotations import (
    AnnotatedQuery,
    Annotations,
    BenchmarkError,
    Row,
    read_annotation,
    read_rows,
)
from pipeline.sources.benchmarks.reader import BenchmarkReader, Selection

COCO = "COCO2017_unlabeled"
COCO_NAME = re.compile(r"\d{12}\.jpg")
"""What COCO calls an image; a file of another name beside them is none of the gallery's."""


class CircoReader(BenchmarkReader):
    """One gallery for both splits; a query has several targets and semantic aspects."""

    name = "circo"
    splits = ("val", "test")
    annotations_source = "CIRCO's annotations are at https://github.com/miccunifi/CIRCO"
    images_source = (
        "COCO 2017 unlabeled is at http://images.cocodataset.org/zips/unlabeled2017.zip; "
        "it belongs into COCO2017_unlabeled/unlabeled2017/ under COCO's names"
    )

    def selection(self, params: DataParams) -> Selection:
        return Selection(Path(params.circo.folder), params.circo.splits)

    def _read(self, folder: Path, split: str, parts: Sequence[str]) -> list[Annotations]:
        rows = read_rows(folder / "annotations" / f"{split}.json", self.annotations_source)
        return [Annotations(self.name, f"{self.name}_{split}", tuple(map(_query, rows)), self._listed(folder))]

    def _listed(self, folder: Path) -> tuple[str, ...] | None:
        path = folder / COCO / "annotations" / "image_info_unlabeled2017.json"
        if not path.is_file():
            return None
        content = Row(read_annotation(path, dict, self.images_source), str(path))
        return tuple(str(row.number("id")) for row in content.rows("images"))

    def gallery(self, folder: Path, annotations: Annotations) -> tuple[str, ...]:
        """COCO's list; without it the images in the folder and those that the queries name, by number."""
        if annotations.gallery is not None:
            return annotations.gallery
        present = {int(path.stem) for path in _images(folder).glob("*.jpg") if COCO_NAME.fullmatch(path.name)}
        named = {int(image_id) for query in annotations.queries for image_id in (query.reference, *query.targets)}
        return tuple(str(number) for number in sorted(present | named))

    def image_files(self, folder: Path, image_ids: Sequence[str]) -> dict[str, Path]:
        there = {path.name for path in _images(folder).glob("*.jpg")}
        names = {image_id: f"{int(image_id):012d}.jpg" for image_id in image_ids}
        return {image_id: _images(folder) / name for image_id, name in names.items() if name in there}


def _query(row: Row) -> AnnotatedQuery:
    targets: tuple[str, ...] = ()
    if "gt_img_ids" in row:
        first = row.number("target_img_id")
        truths = row.numbers("gt_img_ids")
        if first not in truths or len(set(truths)) != len(truths):
            raise BenchmarkError(f"{row.where}: 'gt_img_ids' repeats an image or lacks the target {first}")
        targets = tuple(str(image_id) for image_id in (first, *(other for other in truths if other != first)))
    return AnnotatedQuery(
        str(row.number("id")),
        str(row.number("reference_img_id")),
        (row.text("relative_caption"),),
        targets,
        shared_concept=row.text("shared_concept"),
        aspects=row.texts("semantic_aspects") if "semantic_aspects" in row else (),
    )


def _images(folder: Path) -> Path:
    return folder / COCO / "unlabeled2017"

"""CIRCO: `annotations/{val,test}.json` over the images of COCO 2017 unlabeled.

Image ids are COCO's numbers as texts. The gallery is all that COCO's own
`COCO2017_unlabeled/annotations/image_info_unlabeled2017.json` lists, in its order; without that file
it is not known from the annotations, and a run takes the images that are there, by number.
Targets of the test split are private: its results come from the server.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.sources.benchmarks.annotations import (
    AnnotatedQuery,
    Annotations,
    BenchmarkError,
    Row,
    check_split,
    read_annotation,
    read_rows,
)

NAME, SPLITS = "circo", ("val", "test")
ANNOTATIONS_FROM = "CIRCO's annotations are at https://github.com/miccunifi/CIRCO"
IMAGES_FROM = (
    "COCO 2017 unlabeled is at http://images.cocodataset.org/zips/unlabeled2017.zip; "
    "it belongs into COCO2017_unlabeled/unlabeled2017/ under COCO's names"
)
COCO = "COCO2017_unlabeled"


def read(folder: Path, split: str) -> list[Annotations]:
    check_split(NAME, split, SPLITS)
    queries = [_query(row) for row in read_rows(folder / "annotations" / f"{split}.json", ANNOTATIONS_FROM)]
    return [Annotations(NAME, f"{NAME}_{split}", tuple(queries), _listed(folder))]


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


def _listed(folder: Path) -> tuple[str, ...] | None:
    path = folder / COCO / "annotations" / "image_info_unlabeled2017.json"
    if not path.is_file():
        return None
    content = Row(read_annotation(path, dict, IMAGES_FROM), str(path))
    return tuple(str(row.number("id")) for row in content.rows("images"))


def gallery_there(folder: Path) -> tuple[str, ...]:
    """Ids of the images in the folder, by number: the gallery where COCO's list is missing."""
    return tuple(
        str(number) for number in sorted(int(path.stem) for path in (folder / COCO / "unlabeled2017").glob("*.jpg"))
    )


def image_files(folder: Path, image_ids: tuple[str, ...]) -> dict[str, Path]:
    there = {path.name for path in (folder / COCO / "unlabeled2017").glob("*.jpg")}
    names = {image_id: f"{int(image_id):012d}.jpg" for image_id in image_ids}
    return {image_id: folder / COCO / "unlabeled2017" / name for image_id, name in names.items() if name in there}

"""CIRR: `captions/cap.rc2.<split>.json`, `image_splits/split.rc2.<split>.json`, images in `dev/` and `test1/`.

Query ids are the pair ids. The annotations of test1 have no targets: its results come from the server.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.sources.benchmarks.annotations import AnnotatedQuery, Annotations, check_split, read_paths, read_rows

NAME, SPLITS = "cirr", ("val", "test1")
VERSION = "rc2"
ANNOTATIONS_FROM = "CIRR's annotations are at https://github.com/Cuberick-Orion/CIRR"
IMAGES_FROM = "CIRR's pictures are given out at https://github.com/Cuberick-Orion/CIRR (NLVR2's, on request)"


def read(folder: Path, split: str) -> list[Annotations]:
    check_split(NAME, split, SPLITS)
    gallery = tuple(read_paths(_image_split(folder, split), ANNOTATIONS_FROM))
    queries = []
    for row in read_rows(folder / "captions" / f"cap.{VERSION}.{split}.json", ANNOTATIONS_FROM):
        reference = row.text("reference")
        targets = (row.text("target_hard"),) if "target_hard" in row else ()
        others = tuple(name for name in row.row("img_set").texts("members") if name != reference)
        queries.append(AnnotatedQuery(str(row.number("pairid")), reference, (row.text("caption"),), targets, others))
    return [Annotations(NAME, f"{NAME}_{split}", tuple(queries), gallery)]


def image_files(folder: Path, image_ids: tuple[str, ...]) -> dict[str, Path]:
    """The images that are there: below `folder` itself or below its `img_raw`, as the image_splits files name them."""
    relative: dict[str, str] = {}
    for split in SPLITS:
        if _image_split(folder, split).is_file():
            relative |= read_paths(_image_split(folder, split), ANNOTATIONS_FROM)
    found = {}
    for image_id in image_ids:
        for root in (folder, folder / "img_raw"):
            if (root / relative[image_id]).is_file():
                found[image_id] = root / relative[image_id]
                break
    return found


def _image_split(folder: Path, split: str) -> Path:
    return folder / "image_splits" / f"split.{VERSION}.{split}.json"

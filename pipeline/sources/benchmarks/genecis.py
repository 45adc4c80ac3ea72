"""GeneCIS: `{focus,change}_{attribute,object}.json`; images of COCO (`val2017/`) and Visual Genome (`VG_100K*/`).

Query ids are `<task>/<row>`, rows counted from 0. The object tasks show whole COCO images, named
by COCO's number. The attribute tasks show one object of a Visual Genome image, named
`<image>@<left>,<top>,<width>,<height>` after its box, and cut out as the benchmark's own code
does it: the box grown by 0.7 of its size to the left and above and of what is left to the right and
below, within the image, on a black square. One row of change_object lists its target among the
distractors as well; it is one candidate there as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pipeline.config import DataParams
from pipeline.sources.benchmarks.annotations import (
    AnnotatedQuery,
    Annotations,
    BenchmarkError,
    Box,
    Row,
    read_rows,
)
from pipeline.sources.benchmarks.reader import BenchmarkReader, Selection

TASKS = ("focus_attribute", "change_attribute", "focus_object", "change_object")
DILATION = 0.7
LARGEST = 1_000_000
"""No image has so many pixels a side."""
FOLDERS = ("val2017", "VG_100K", "VG_100K_2", "VG_100K_all")


class GeneCISReader(BenchmarkReader):
    """One entry a task; a query's subset is its own small gallery, the target among it."""

    name = "genecis"
    splits = ("val", *TASKS)
    annotations_source = "GeneCIS' four files are at https://github.com/facebookresearch/genecis"
    images_source = (
        "COCO val2017 is at http://images.cocodataset.org/zips/val2017.zip (for val2017/), Visual Genome 1.2 at "
        "https://homes.cs.washington.edu/~ranjay/visualgenome (for VG_100K/ and VG_100K_2/)"
    )

    def selection(self, params: DataParams) -> Selection:
        return Selection(Path(params.genecis.folder), ("val",), params.genecis.tasks)

    def _read(self, folder: Path, split: str, parts: Sequence[str]) -> list[Annotations]:
        """The tasks of `parts`, else the one that `split` names, else (for `val`) all whose file is there."""
        there = tuple(task for task in TASKS if _path(folder, task).is_file())
        tasks = parts or ((split,) if split in TASKS else there or TASKS)
        return [self._read_task(folder, task) for task in tasks]

    def _read_task(self, folder: Path, task: str) -> Annotations:
        queries: list[AnnotatedQuery] = []
        boxes: dict[str, Box] = {}
        gallery: dict[str, None] = {}
        for number, row in enumerate(read_rows(_path(folder, task), self.annotations_source)):
            reference, target = _image(row.row("reference"), boxes), _image(row.row("target"), boxes)
            subset = tuple(dict.fromkeys((target, *(_image(entry, boxes) for entry in row.rows("gallery")))))
            if reference in subset or len(subset) < 2:
                raise BenchmarkError(f"{row.where}: its gallery holds the reference, or nothing but the target")
            gallery |= dict.fromkeys((reference, *subset))
            queries.append(
                AnnotatedQuery(
                    f"{task}/{number}", reference, (row.text("condition"),), (target,), subset, category=task
                )
            )
        crops = {image_id: partial(crop_of, box) for image_id, box in boxes.items()}
        return Annotations(self.name, f"{self.name}_{task}", tuple(queries), tuple(gallery), crops)

    def image_files(self, folder: Path, image_ids: Sequence[str]) -> dict[str, Path]:
        there = {path.name: path for name in FOLDERS for path in (folder / name).glob("*.jpg")}
        names = {
            image_id: f"{image_id.split('@')[0]}.jpg" if "@" in image_id else f"{int(image_id):012d}.jpg"
            for image_id in image_ids
        }
        return {image_id: there[name] for image_id, name in names.items() if name in there}


def _path(folder: Path, task: str) -> Path:
    return folder / f"{task}.json"


def _image(row: Row, boxes: dict[str, Box]) -> str:
    """An image's id; the box of an object is put into `boxes`."""
    if "val_image_id" in row:
        return str(row.number("val_image_id"))
    box = row.numbers("instance_bbox", (int, float))
    if len(box) != 4:
        raise BenchmarkError(f"{row.where}: 'instance_bbox' has {len(box)} numbers, not 4")
    if not all(-LARGEST < side < LARGEST for side in box):  # nor is NaN
        raise BenchmarkError(f"{row.where}: 'instance_bbox' is no box of an image: {list(map(str, box))}")
    image_id = f"{row.number('image_id')}@{','.join(f'{side:g}' for side in box)}"
    boxes[image_id] = box
    return image_id


def crop_of(box: Box, width: int, height: int) -> list[int]:
    """The part (left, top, right, bottom) in pixels of a `width` x `height` image that shows the object.

    Args:
        box: Left, top, width and height of the object in pixels.
        width: Width of the whole image.
        height: Height of the whole image.
    """
    left, top = max(0.0, box[0] - DILATION * box[2]), max(0.0, box[1] - DILATION * box[3])
    right, bottom = min(width, left + (1 + DILATION) * box[2]), min(height, top + (1 + DILATION) * box[3])
    return [round(side) for side in (left, top, right, bottom)]

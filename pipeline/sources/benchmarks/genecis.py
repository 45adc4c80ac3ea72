"""GeneCIS: `{focus,change}_{attribute,object}.json`; images of COCO (`val2017/`) and Visual Genome (`VG_100K*/`).

Query ids are `<task>/<row>`, rows counted from 0. The object tasks show whole COCO images, named
by COCO's number. The attribute tasks show one object of a Visual Genome image, named
`<image>@<left>,<top>,<width>,<height>` after its box, and cut out as the benchmark's own code
does it: the box grown by 0.7 of its size to the left and above and of what is left to the right and
below, within the image, on a black square. One row of change_object lists its target among the
distractors as well; it is one candidate there as everywhere.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.sources.benchmarks.annotations import (
    AnnotatedQuery,
    Annotations,
    BenchmarkError,
    Row,
    check_split,
    read_rows,
)

NAME = "genecis"
TASKS = ("focus_attribute", "change_attribute", "focus_object", "change_object")
SPLITS = ("val", *TASKS)
ANNOTATIONS_FROM = "GeneCIS' four files are at https://github.com/facebookresearch/genecis"
IMAGES_FROM = (
    "COCO val2017 is at http://images.cocodataset.org/zips/val2017.zip (for val2017/), Visual Genome 1.2 at "
    "https://homes.cs.washington.edu/~ranjay/visualgenome (for VG_100K/ and VG_100K_2/)"
)
DILATION = 0.7
LARGEST = 1_000_000
"""No image has so many pixels a side."""
FOLDERS = ("val2017", "VG_100K", "VG_100K_2", "VG_100K_all")


def read(folder: Path, split: str, parts: tuple[str, ...] = ()) -> list[Annotations]:
    """One entry a task: those of `parts`, else the one that `split` names; for `val` all whose file is there."""
    check_split(NAME, split, SPLITS)
    there = tuple(task for task in TASKS if _path(folder, task).is_file())
    return [_read_task(folder, task) for task in parts or ((split,) if split in TASKS else there or TASKS)]


def _path(folder: Path, task: str) -> Path:
    return folder / f"{task}.json"


def _read_task(folder: Path, task: str) -> Annotations:
    queries, boxes, gallery = [], {}, {}
    for number, row in enumerate(read_rows(_path(folder, task), ANNOTATIONS_FROM)):
        reference, target = _image(row.row("reference"), boxes), _image(row.row("target"), boxes)
        subset = tuple(dict.fromkeys((target, *(_image(entry, boxes) for entry in row.rows("gallery")))))
        if reference in subset or len(subset) < 2:
            raise BenchmarkError(f"{row.where}: its gallery holds the reference, or nothing but the target")
        gallery |= dict.fromkeys((reference, *subset))
        queries.append(
            AnnotatedQuery(f"{task}/{number}", reference, (row.text("condition"),), (target,), subset, category=task)
        )
    return Annotations(NAME, f"{NAME}_{task}", tuple(queries), tuple(gallery), boxes)


def _image(row: Row, boxes: dict[str, tuple[float, ...]]) -> str:
    """An image's id; the box of an object is put into `boxes`."""
    if "val_image_id" in row:
        return str(row.number("val_image_id"))
    box = row.numbers("instance_bbox", (int, float))
    if len(box) != 4:
        raise BenchmarkError(f"{row.where}: 'instance_bbox' has {len(box)} numbers, not 4")
    if not all(-LARGEST < side < LARGEST for side in box):  # nor is NaN
        raise BenchmarkError(f"{row.where}: 'instance_bbox' is no box of a picture: {list(map(str, box))}")
    image_id = f"{row.number('image_id')}@{','.join(f'{side:g}' for side in box)}"
    boxes[image_id] = box
    return image_id


def image_files(folder: Path, image_ids: tuple[str, ...]) -> dict[str, Path]:
    there = {path.name: path for name in FOLDERS for path in (folder / name).glob("*.jpg")}
    names = {
        image_id: f"{image_id.split('@')[0]}.jpg" if "@" in image_id else f"{int(image_id):012d}.jpg"
        for image_id in image_ids
    }
    return {image_id: there[name] for image_id, name in names.items() if name in there}


def crop_of(box: tuple[float, ...], width: int, height: int) -> list[int]:
    """The part (left, top, right, bottom) of a `width` x `height` image that shows the object."""
    left, top = max(0.0, box[0] - DILATION * box[2]), max(0.0, box[1] - DILATION * box[3])
    right, bottom = min(width, left + (1 + DILATION) * box[2]), min(height, top + (1 + DILATION) * box[3])
    return [round(side) for side in (left, top, right, bottom)]

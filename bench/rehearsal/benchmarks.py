"""The four public benchmarks in miniature: the official layouts and file names, tiny images, a few queries."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

IMAGES = 56
"""Images a gallery: enough for lists of 50 without the reference."""


Draw = Callable[[int], Image.Image]
"""What draws the picture of a number."""


@dataclass(frozen=True)
class Circo:
    """CIRCO, whose gallery is by far the largest."""

    images: int = IMAGES
    tests: int = 0
    """Queries of its test split; 0: as many as of the others."""


def plain(number: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """One colour."""
    return Image.new("RGB", size, (number * 4 % 256, 255 - number * 3 % 256, number * 11 % 256))


def write_all(root: Path, queries: int = 4, draw: Draw = plain, circo: Circo = Circo()) -> dict[str, Path]:
    """Write all four.

    Args:
        root: Where their folders go.
        queries: Of each split, category or task.
        draw: Draws the pictures.
        circo: How much of CIRCO.

    Returns:
        Benchmark -> its folder below `root`.
    """
    writers = {"fashioniq": _fashioniq, "cirr": _cirr, "circo": partial(_circo, size=circo), "genecis": _genecis}
    rng = random.Random(0)
    for name, write in writers.items():
        write(root / name, queries, rng, draw)
    return {name: root / name for name in writers}


def make_image(path: Path, number: int, draw: Draw = plain) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(number).save(path)


def dump(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _fashioniq(root: Path, queries: int, rng: random.Random, draw: Draw) -> None:
    for start, category in enumerate(("dress", "shirt", "toptee")):
        names = [f"B00{start}{number:06d}" for number in range(IMAGES)]
        for number, name in enumerate(names):
            make_image(root / "images" / f"{name}.{'jpg' if number % 2 else 'png'}", number + start, draw)
        pairs = [rng.sample(names, 2) for _ in range(queries)]
        captions = [["is solid red.", "" if number == 1 else "has a hat "] for number in range(queries)]
        rows = [{"target": b, "candidate": a, "captions": texts} for (a, b), texts in zip(pairs, captions, strict=True)]
        dump(root / "captions" / f"cap.{category}.val.json", rows)
        dump(root / "image_splits" / f"split.{category}.val.json", names)


def _cirr(root: Path, queries: int, rng: random.Random, draw: Draw) -> None:
    for split, folder in (("val", "dev"), ("test1", "test1")):
        names = [f"{folder}-{number}-0-img0" for number in range(IMAGES)]
        for number, name in enumerate(names):
            make_image(root / folder / f"{name}.png", number, draw)
        rows = []
        for number in range(queries):
            members = rng.sample(names, 6)
            group = {"id": number, "members": sorted(members)}
            row = {"pairid": 100 + number, "reference": members[0], "caption": "a red ball", "img_set": group}
            rows.append(
                row if split == "test1" else row | {"target_hard": members[1], "target_soft": {members[1]: 1.0}}
            )
        dump(root / "captions" / f"cap.rc2.{split}.json", rows)
        dump(root / "image_splits" / f"split.rc2.{split}.json", {name: f"./{folder}/{name}.png" for name in names})


def _circo(root: Path, queries: int, rng: random.Random, draw: Draw, size: Circo) -> None:
    numbers = [100_000 + 7 * number for number in range(size.images)]
    for number, image_id in enumerate(numbers):
        make_image(root / "COCO2017_unlabeled" / "unlabeled2017" / f"{image_id:012d}.jpg", number, draw)
    for split in ("val", "test"):
        rows = []
        for number in range(size.tests or queries if split == "test" else queries):
            reference, *truths = rng.sample(numbers, 5)
            row = {
                "id": number,
                "reference_img_id": reference,
                "relative_caption": "is a cat with a hat",
                "shared_concept": "a cat",
            }
            aspects = ["addition", "negation"][: 1 + number % 2]
            targets = {"target_img_id": truths[0], "gt_img_ids": truths[: 1 + number % 4], "semantic_aspects": aspects}
            rows.append(row if split == "test" else row | targets)
        dump(root / "annotations" / f"{split}.json", rows)


def _genecis(root: Path, queries: int, rng: random.Random, draw: Draw) -> None:
    for number in range(20):
        make_image(root / "val2017" / f"{number + 1:012d}.jpg", number, draw)
        make_image(
            root / ("VG_100K", "VG_100K_2")[number % 2] / f"{number + 500}.jpg",
            number,
            partial(plain, size=(40, 30)) if draw is plain else draw,
        )
    for verb in ("focus", "change"):
        for what in ("attribute", "object"):
            rows = []
            for _ in range(queries):
                chosen = rng.sample(range(20), 12)
                if what == "object":
                    images = [{"val_image_id": number + 1} for number in chosen]
                else:
                    images = [{"image_id": number + 500, "instance_bbox": [number, 4.5, 10, 8]} for number in chosen]
                rows.append({"condition": "red", "reference": images[0], "target": images[1], "gallery": images[2:]})
            dump(root / f"{verb}_{what}.json", rows)

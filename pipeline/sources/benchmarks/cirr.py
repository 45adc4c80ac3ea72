"""CIRR: `captions/cap.rc2.<split>.json`, `image_splits/split.rc2.<split>.json`, images in `dev/` and `test1/`.

Query ids are the pair ids. The annotations of test1 have no targets: its results come from the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.config import DataParams
from pipeline.sources.benchmarks.annotations import AnnotatedQuery, Annotations, read_paths, read_rows
from pipeline.sources.benchmarks.reader import BenchmarkReader, Selection

VERSION = "rc2"


class CirrReader(BenchmarkReader):
    """One gallery a split; a query's subset is its group of six without the reference."""

    name = "cirr"
    splits = ("val", "test1")
    annotations_source = "CIRR's annotations are at https://github.com/Cuberick-Orion/CIRR"
    images_source = "CIRR's images are given out at https://github.com/Cuberick-Orion/CIRR (NLVR2's, on request)"

    def selection(self, params: DataParams) -> Selection:
        return Selection(Path(params.cirr.folder), params.cirr.splits)

    def _read(self, folder: Path, split: str, parts: Sequence[str]) -> list[Annotations]:
        gallery = tuple(read_paths(_image_split(folder, split), self.annotations_source))
        queries = []
        for row in read_rows(folder / "captions" / f"cap.{VERSION}.{split}.json", self.annotations_source):
            reference = row.text("reference")
            targets = (row.text("target_hard"),) if "target_hard" in row else ()
            others = tuple(name for name in row.row("img_set").texts("members") if name != reference)
            queries.append(
                AnnotatedQuery(str(row.number("pairid")), reference, (row.text("caption"),), targets, others)
            )
        return [Annotations(self.name, f"{self.name}_{split}", tuple(queries), gallery)]

    def image_files(self, folder: Path, image_ids: Sequence[str]) -> dict[str, Path]:
        """Below `folder` itself or below its `img_raw`, as the image_splits files name them."""
        relative: dict[str, str] = {}
        for split in self.splits:
            if _image_split(folder, split).is_file():
                relative |= read_paths(_image_split(folder, split), self.annotations_source)
        found = {}
        for image_id in image_ids:
            for root in (folder, folder / "img_raw"):
                if (root / relative[image_id]).is_file():
                    found[image_id] = root / relative[image_id]
                    break
        return found


def _image_split(folder: Path, split: str) -> Path:
    return folder / "image_splits" / f"split.{VERSION}.{split}.json"

"""From the owners' layouts to the canonical tables, one pass, a few images in memory.

Images stay in their archives, or are copied where the parameters say so or nobody could find them there again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.artifacts import ShardWriter, schemas, write_atomically, write_table
from pipeline.artifacts.ids import IdRegister
from pipeline.artifacts.rejections import REJECTED
from pipeline.config import DataParams
from pipeline.sources.errors import SourceError
from pipeline.sources.files import files_below
from pipeline.sources.web.archives import ARCHIVES, journeydb, webdataset
from pipeline.sources.web.folder import csv_folder
from pipeline.sources.web.hqedit import hqedit
from pipeline.sources.web.samples import Sample, checked

SHARD, GROUP = 2_000, 100
REJECTED_SCHEMA = pa.schema([("image_id", pa.string()), ("reason", pa.string())])
READERS: dict[str, Callable[[Path, str], Iterator[Sample]]] = {
    "cc3m": webdataset,
    "cc12m": webdataset,
    "sa1b": webdataset,
    "webdataset": webdataset,
    "journeydb": journeydb,
    "folder": csv_folder,
}
EXPECTED = {
    "cc3m": ("img2dataset's webdataset shards of CC3M (00000.tar ...)", 271e9),
    "cc12m": ("img2dataset's webdataset shards of CC12M (00000.tar ...)", 331e9),
    "sa1b": ("SA-1B's archives sa_000000.tar ... sa_000999.tar", 0),
    "journeydb": ("JourneyDB's train archives 000.tgz ... and train_anno_realease_repath.jsonl", 0),
    "webdataset": ("webdataset shards *.tar", 0),
    "folder": ("images and a CSV with the columns image and caption", 0),
    "hqedit": ("the Parquet files of the hub release UCSC-VLAA/HQ-Edit (data/train-*.parquet)", 0),
}
"""What a source's folder holds, and about how many bytes, where a page says so: CC3M with sides of up to 1024 pixels
(the hub's card of WeiChow/cc3m), CC12M with 256 (img2dataset's documentation). 0: not known, or whatever a user has."""


def build(params: DataParams, seed: int, out: Path) -> dict[str, int]:
    """Write pairs/images, pairs/pairs, triplets/all, triplets/sampled and pairs/rejected.parquet below `out`.

    Args:
        params: The section `data`.
        seed: Kept in the tables' identity.
        out: The folder `data`.

    Returns:
        Table -> rows.

    Raises:
        SourceError: Sources are missing (all are named at once), or more than
            `data.web.max_rejected_share` of the images are rejected.
    """
    raw, web = Path(params.raw), params.web
    _check_there(raw, [*web.pairs, *web.edits])
    made_of = {"source": "web", "pairs": web.pairs, "edits": web.edits, "seed": seed, "max_images": params.max_images}
    made_of["copy"] = params.copy
    made_of["decoding"] = "shown"  # tables from before this treatment must not be continued
    with write_atomically(out / "pairs") as aside:
        tables = _Tables(aside, made_of, params.copy)
        for name in web.pairs:
            images = 0
            for sample in READERS[name](raw / name, name):
                if params.max_images and images >= params.max_images:
                    break
                images += sample.is_image
                tables.add(sample, with_pairs=True)
        triplets = [triplet for name in web.edits for triplet in tables.edits(hqedit(raw / name, name))]
        tables.close(web.max_rejected_share)
        if web.edits and not triplets:
            raise SourceError(f"data.web.edits: there is no usable edit in {', '.join(map(str, web.edits))}")
    everything = pa.Table.from_pylist(triplets, schemas.TRIPLETS)
    write_table(out / "triplets" / "all", everything, made_of)
    count = min(params.triplets, len(triplets)) or len(triplets)
    write_table(out / "triplets" / "sampled", everything.slice(0, count), made_of)
    return {
        "pairs/images": tables.images.rows_done,
        "pairs/pairs": tables.pairs.rows_done,
        "triplets/all": len(triplets),
    }


def _check_there(raw: Path, names: list[str]) -> None:
    missing = []
    for name in names:
        folder = raw / name
        endings = (".parquet",) if name == "hqedit" else (".csv",) if name == "folder" else ARCHIVES
        if not folder.is_dir() or not files_below(folder, endings):
            what, size = EXPECTED[name]
            missing.append(f"{folder} must hold {what}" + (f", about {size / 1e9:,.0f} GB" if size else ""))
    if missing:
        raise SourceError(f"data.web: {len(missing)} of {len(names)} sources are not there: {'; '.join(missing)}")


class _Tables:
    """Images and pairs as they grow; a few images are in memory."""

    def __init__(self, folder: Path, identity: dict[str, Any], copy: bool):
        self._folder = folder
        folder.mkdir()
        self._copy = copy
        schema = schemas.IMAGES if copy else schemas.IMAGE_MEMBERS
        self.images = ShardWriter(folder / "images", schema, identity, SHARD)
        self.pairs = ShardWriter(folder / "pairs", schemas.PAIRS, identity, 5 * SHARD)
        self._rows: dict[str, list[dict[str, Any]]] = {"images": [], "pairs": []}
        self._rejected: list[Sample] = []
        self._ids = IdRegister()

    def add(self, sample: Sample, with_pairs: bool) -> bool:
        """Whether the image can be used. A pair without a caption is left to the captioning model."""
        sample, (width, height) = checked(sample)
        if not sample.reason and self._ids.add([sample.image_id])[0] >= 0:
            sample = Sample(sample.image_id, reason="a second image of this id")
        if sample.reason:
            self._rejected.append(sample)
            return False
        image = {"image_id": sample.image_id, "width": width, "height": height}
        where = {"bytes": sample.content} if self._copy or sample.place is None else sample.place._asdict()
        self._rows["images"].append(image | where)
        for number, caption in enumerate((sample.captions or ("",)) if with_pairs else ()):
            pair_id = f"{sample.image_id}/short" + (f"/{number}" if number else "")
            pair = {"pair_id": pair_id, "image_id": sample.image_id, "caption": caption}
            self._rows["pairs"].append(pair | {"caption_kind": "short", "phrases": []})
        if len(self._rows["images"]) >= GROUP:
            self._write()
        return True

    def edits(self, found: Iterator[tuple[list[Sample], list[dict[str, Any]]]]) -> Iterator[dict[str, Any]]:
        """The triplets whose images both can be used."""
        for samples, triplets in found:
            if all([self.add(sample, with_pairs=False) for sample in samples]):
                yield from triplets

    def _write(self) -> None:
        for name, writer in (("images", self.images), ("pairs", self.pairs)):
            if self._rows[name]:
                writer.write(pa.Table.from_pylist(self._rows[name], writer.schema))
            self._rows[name] = []

    def close(self, max_rejected_share: float) -> None:
        self._write()
        lost = [sample for sample in self._rejected if sample.is_image]
        total = len(lost) + self.images.close().rows
        self.pairs.close()
        if len(lost) > max_rejected_share * total:
            count = f"{len(lost)} of {total} images are rejected, data.web.max_rejected_share is {max_rejected_share}"
            raise SourceError(f"{lost[0].image_id}: {lost[0].reason} ({count})")
        columns = [[sample.image_id for sample in self._rejected], [sample.reason for sample in self._rejected]]
        pq.write_table(pa.Table.from_arrays(columns, schema=REJECTED_SCHEMA), self._folder / REJECTED)

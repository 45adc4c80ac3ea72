"""A little data in the layouts in which the owners of the sources and benchmarks give it away."""

from __future__ import annotations

import io
import json
import random
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bench.rehearsal import benchmarks
from bench.rehearsal.words import caption

ARCHIVES = 4
"""Archives of a source: more than one, so that they are shared out."""


@dataclass(frozen=True)
class Amounts:
    """How much is made."""

    pairs: int
    """Images of all sources of pairs together."""
    edits: int
    """Edits of HQ-Edit, each of which gives two triplets."""
    queries: int
    """Queries of every split of every benchmark, but CIRCO's test split."""
    asked: int
    """Queries of that one; rates are read from it."""
    gallery: int
    """Images of CIRCO's gallery; rates are read from it."""
    side: int
    """Longer side of an image, in pixels."""
    words: int
    """Words of a source's caption."""


def write_data(raw: Path, sources: list[str], amounts: Amounts) -> None:
    """Every source and the four benchmarks below `raw`.

    Args:
        raw: What `data.raw` names.
        sources: Of pairs, by their names in `data.web.pairs`.
        amounts: How much.
    """
    rng = random.Random(0)
    each = -(-amounts.pairs // len(sources))
    for source in sources:
        WRITERS[source](raw / source, each, amounts, rng)
    _hqedit(raw / "hqedit", amounts, rng)
    circo = benchmarks.Circo(amounts.gallery, amounts.asked)
    benchmarks.write_all(raw, amounts.queries, lambda number: picture(number, amounts.side), circo)


def picture(number: int, side: int) -> Image.Image:
    """A picture of smooth colours with some noise, whose JPEG is about as large as a photograph's."""
    drawn = np.random.default_rng(number)
    coarse = Image.fromarray(drawn.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((side, side * 3 // 4))
    noise = drawn.normal(0, 8, (side * 3 // 4, side, 1))
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


def jpeg(number: int, side: int) -> bytes:
    buffer = io.BytesIO()
    picture(number, side).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def tar(path: Path, files: list[tuple[str, bytes]], compress: bool = False) -> None:
    """An archive of named contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if compress else "w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _parts(count: int) -> list[range]:
    """Consecutive numbers, one range an archive."""
    size = -(-count // ARCHIVES)
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _img2dataset(folder: Path, count: int, amounts: Amounts, rng: random.Random) -> None:
    """CC3M and CC12M as img2dataset downloads them: a picture, its caption, and its facts."""
    for part, numbers in enumerate(_parts(count)):
        files = []
        for number in numbers:
            key, text = f"{part:05d}{number:04d}", caption(rng, amounts.words)
            facts = json.dumps({"caption": text, "key": key, "status": "success"}).encode()
            files += [(f"{key}.jpg", jpeg(rng.getrandbits(32), amounts.side))]
            files += [(f"{key}.json", facts), (f"{key}.txt", text.encode())]
        tar(folder / f"{part:05d}.tar", files)


def _sa1b(folder: Path, count: int, amounts: Amounts, rng: random.Random) -> None:
    """SA-1B: pictures and masks, no captions."""
    for part, numbers in enumerate(_parts(count)):
        files = []
        for number in numbers:
            masks = json.dumps({"image": {"image_id": number}, "annotations": [{"bbox": [0, 0, 1, 1]}]}).encode()
            files += [(f"./sa_{number}.jpg", jpeg(rng.getrandbits(32), amounts.side)), (f"./sa_{number}.json", masks)]
        tar(folder / f"sa_{part:06d}.tar", files)


def _journeydb(folder: Path, count: int, amounts: Amounts, rng: random.Random) -> None:
    """JourneyDB: compressed archives of pictures, and one file of annotations."""
    lines = []
    for part, numbers in enumerate(_parts(count)):
        names = [f"./{part:03d}/{number:08d}.jpg" for number in numbers]
        tar(folder / f"imgs/{part:03d}.tgz", [(name, jpeg(rng.getrandbits(32), amounts.side)) for name in names], True)
        for name in names:
            text = caption(rng, amounts.words)
            lines.append(json.dumps({"img_path": name, "prompt": f"{text} --v 4", "Task2": {"Caption": text}}))
    (folder / "train_anno_realease_repath.jsonl").write_text("\n".join(lines))


def _hqedit(folder: Path, amounts: Amounts, rng: random.Random) -> None:
    """HQ-Edit: Parquet files of both pictures, both descriptions and the edit in both directions."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    texts = ["input", "edit", "inverse_edit", "output"]
    schema = pa.schema([(name, pa.string()) for name in texts] + [("input_image", image), ("output_image", image)])
    images = ("input_image", "output_image")
    rows = [
        {name: caption(rng, 10 if "edit" in name else amounts.words) for name in texts}
        | {name: {"bytes": jpeg(rng.getrandbits(32), amounts.side), "path": None} for name in images}
        for _ in range(amounts.edits)
    ]
    (folder / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "data/train-00000-of-00001.parquet")


WRITERS = {"cc3m": _img2dataset, "cc12m": _img2dataset, "sa1b": _sa1b, "journeydb": _journeydb}

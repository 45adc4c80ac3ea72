"""What a stage holds in memory beside its models, by the number of pairs.

    python -m bench.host_memory                        # 250,000, 500,000 and 1,000,000 pairs
    python -m bench.host_memory --rows 2000 --rows 4000    # a try

A source of that many pairs is made up: small images with captions in img2dataset's layout, 10,000 samples a tar. (The
captions of one tar are in memory while it is read.) Every stage's own readers, writers and tables go over it. Models
are stand-ins that answer at once, because theirs is the memory of the GPU. A stage runs in a process of its own, which
measures the most anonymous memory that it holds. Pages of mapped files do not count, because the system takes them
back. A line through these figures gives bytes a row and what the 33 million pairs of the paper need.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import torch
import typer
from PIL import Image

from bench.machine import AnonymousPeak, hardware, versions
from pipeline.artifacts import ShardSet, schemas, write_json
from pipeline.config import Params, load_profile, with_overrides
from pipeline.encoders.embedding.captioning import captioning_rows
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.readers import PairReader, training_rows
from pipeline.encoders.embedding.rows import EncoderRow
from pipeline.encoders.embedding.slices import EncoderJob
from pipeline.encoders.image_source import ImageTable
from pipeline.encoders.training_images import training_images
from pipeline.errors import report_user_errors
from pipeline.fusion_diff.tables import open_vectors
from pipeline.sources import web
from pipeline.text.captions import captions_by_image, merged_rows, share_of
from pipeline.training.loop import batch_indices
from stages import extract_text, train_diffcomp, train_prior

ROOT = Path(__file__).resolve().parents[1]
PAPER_ROWS, MOST_GIB = 33_000_000, 16
DIM = 64
"""Numbers of a vector. Vectors are never in memory all at once, so memory does not depend on it."""
SAMPLES = 10_000
"""Of a tar."""
STEPS = 50
"""Batches that a training takes."""
COLOURS, THINGS = (
    ["red", "green", "blue", "white", "black", "yellow"],
    ["dog", "cat", "house", "tree", "car", "boat", "bridge", "street"],
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def captions(count: int) -> Iterator[str]:
    """Captions of about a dozen words, hardly any of them twice."""
    kinds = list(product(COLOURS, THINGS))
    for number in range(count):
        (colour, thing), (other, place) = kinds[number % len(kinds)], kinds[number // 7 % len(kinds)]
        yield f"a {colour} {thing} beside the {other} {place} with the number {number} on its wooden front door"


def write_source(folder: Path, count: int) -> None:
    """Tars of so many images of 32 x 32 pixels, each with its caption."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)
    images = []
    for image in pixels:
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, "JPEG")
        images.append(encoded.getvalue())
    numbered = enumerate(captions(count))
    for part in range(-(-count // SAMPLES)):
        with tarfile.open(folder / f"{part:05d}.tar", "w") as archive:
            for number, caption in islice(numbered, SAMPLES):
                for ending, content in (("jpg", images[number % len(images)]), ("txt", caption.encode())):
                    member = tarfile.TarInfo(f"{number:09d}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def prepare(params: Params) -> None:
    web.build(params.data, params.seed, Path("data"))


def caption(params: Params) -> None:
    """Long captions, by a model that has one answer."""
    pairs = ShardSet.open(extract_text.PAIRS)
    short = {
        image_id
        for image_id, found in captions_by_image(pairs)
        if not extract_text.is_captioned(image_id, found, params)
    }
    reader = PairReader(ShardSet.open(extract_text.IMAGES), pairs, captioning_rows(params.captioner), skip=short)
    run_job(reader, _stand_in(schemas.PAIRS, _long_rows), extract_text.GENERATED, {}, _options(params))


def merge(params: Params) -> None:
    """Captions merged, and the phrases of DiffComp's share by spaCy."""
    pairs, generated = ShardSet.open(extract_text.PAIRS), ShardSet.open(extract_text.GENERATED)
    rows = merged_rows(captions_by_image(pairs), (row for table in generated.shards() for row in table.to_pylist()))
    extract_text.write_rows(params, rows, {})


def embed(params: Params) -> None:
    """A vector of every pair."""
    reader = PairReader(
        ShardSet.open(extract_text.IMAGES), ShardSet.open(extract_text.TEXTS), training_rows(params.prior.data)
    )
    run_job(reader, _stand_in(schemas.embeddings(DIM), _vector_rows), train_prior.PAIRS, {}, _options(params))


def stage_1(params: Params) -> None:
    """Vectors and captions, mapped, and batches of them."""
    ids, vectors, _ = open_vectors(train_prior.PAIRS, in_memory=0)
    texts = train_prior.map_captions(ids, params.prior.data)
    for step in range(STEPS):
        indices = batch_indices(len(ids), params.prior.batch_size, step, params.seed)
        for row, vector in zip(indices.tolist(), vectors[indices], strict=True):
            assert texts[row] and len(vector) == DIM


def diffcomp(params: Params) -> None:
    """The share's captions, phrases and images, and batches of them."""
    rows = share_of(ShardSet.open(train_diffcomp.TEXTS), params.diffcomp.data)
    ids = [row["image_id"] for row in rows]
    images = training_images(ImageTable(train_diffcomp.IMAGES, set(ids)), ids, 224, 0, in_memory=0)
    for step in range(STEPS):
        indices = batch_indices(len(ids), params.diffcomp.batch_size, step, params.seed)
        assert len(images[indices]) == len(indices)


STAGES: dict[str, Callable[[Params], None]] = {
    "prepare": prepare,
    "extract_text: captions": caption,
    "extract_text: phrases": merge,
    "embed_fused": embed,
    "train_prior": stage_1,
    "train_diffcomp": diffcomp,
}


def _stand_in(schema: pa.Schema, table: Callable[[Sequence[EncoderRow], Sequence[Any]], pa.Table]) -> EncoderJob:
    """A job whose model answers every input with None."""
    return EncoderJob(schema, lambda rows, inputs: [None] * len(inputs), table)


def _long_rows(kept: Sequence[EncoderRow], results: Sequence[Any]) -> pa.Table:
    found = [
        {"pair_id": row.id, "image_id": row.image_id, "caption": f"{row.image_id} in many words " * 8}
        | {"caption_kind": "long", "phrases": []}
        for row in kept
    ]
    return pa.Table.from_pylist(found, schemas.PAIRS)


def _vector_rows(kept: Sequence[EncoderRow], results: Sequence[Any]) -> pa.Table:
    numbers = pa.array(np.ones(len(kept) * DIM, np.float32))
    vectors = pa.FixedSizeListArray.from_arrays(numbers, DIM)
    return pa.table([pa.array([row.id for row in kept]), vectors], schema=schemas.embeddings(DIM))


def _options(params: Params) -> JobOptions:
    return replace(JobOptions.from_params(params.embedder, params.jobs), workers=0)


def bench_params() -> Params:
    """The paper's, with one source and what this machine has."""
    params = load_profile("paper", ROOT / "conf")
    data = with_overrides(params.data, {"web": {"pairs": ["cc3m"], "edits": []}}, "data")
    learned = with_overrides(params.prior, {"data": {"sources": ["cc3m"], "short_sources": []}}, "prior")
    texts = with_overrides(params.captions, {"processes": 1, "long_share": 0.85}, "captions")
    return replace(params, data=data, prior=learned, captions=texts)


@app.command()
@report_user_errors()
def main(
    rows: Annotated[list[int] | None, typer.Option(min=1, help="Pairs; may be given again.")] = None,
    folder: Annotated[Path | None, typer.Option(help="For the made-up data, 10 KB a pair.")] = None,
    out: Path = Path("reports/bench/host_memory.json"),
    stage: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure all stages, and write the JSON."""
    if stage:
        print(json.dumps(measured(stage)))
        return
    sizes = sorted(rows or (250_000, 500_000, 1_000_000))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in STAGES}
    for count in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            write_source(Path(place) / "data/raw/cc3m", count)
            for name in STAGES:
                found[name].append({"rows": count, **_in_a_process(name, Path(place))})
                print(f"{name:24s}{count:10d} rows {found[name][-1]['peak_mib']:10.1f} MiB")
    results = {name: {"measured": peaks, **line_through(peaks)} for name, peaks in found.items()}
    options = " ".join(f"--rows {count}" for count in rows or ())
    report = {
        "command": f"python -m bench.host_memory {options}".strip(),
        "hardware": hardware(),
        "versions": versions("torch", "pyarrow", "numpy", "spacy"),
        "paper_rows": PAPER_ROWS,
        "most_gib": MOST_GIB,
        "stages": results,
    }
    write_json(out, report)
    worst = max(results, key=lambda name: results[name]["paper_gib"])
    print(f"{out}: {worst} needs most, {results[worst]['paper_gib']} GiB for {PAPER_ROWS} pairs")


def measured(name: str) -> dict[str, float]:
    """Run one stage in the working folder."""
    torch.set_num_threads(1)
    params, start = bench_params(), time.perf_counter()
    with AnonymousPeak() as peak:
        STAGES[name](params)
    return {"peak_mib": peak.peak_mib, "seconds": round(time.perf_counter() - start, 1)}


def line_through(peaks: Iterable[dict[str, float]]) -> dict[str, float]:
    """Bytes a row, and GiB for `PAPER_ROWS`, by least squares; a line that falls is taken as level."""
    counts, values = zip(*((peak["rows"], peak["peak_mib"] * 2**20) for peak in peaks), strict=True)
    slope = max(0.0, float(np.polyfit(counts, values, 1)[0])) if len(counts) > 1 else values[0] / counts[0]
    paper = max(values) + slope * (PAPER_ROWS - max(counts))
    return {"bytes_a_row": round(slope, 1), "paper_gib": round(paper / 2**30, 2)}


def _in_a_process(name: str, place: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.host_memory", "--stage", name]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=place, env=env, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    app()

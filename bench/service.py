"""What `cir serve` answers: steady loads of slerp searches, and Fusion-Diff searches at once.

    python -m bench.service --images 100000 --rate 50

References of the first load are images of the gallery, named by their ids: the index gives their vectors. Those of the
second are uploads, which are decoded and encoded.
It needs the finished default pipeline. The gallery is that of the default benchmark, many times over: each copy's
vectors are moved a little, at random, and its images are the same. Server and load share the machine. Searches start
by the clock, whether earlier ones are answered or not, and a search's time counts from when it should have started.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import numpy as np
import pyarrow as pa
import typer

from bench.machine import hardware, versions
from pipeline.artifacts import ShardSet, schemas, write_json, write_table
from pipeline.config import load_params
from pipeline.retrieval import build_index

NAME, SOURCE = "copies", "emoji_cir"
SPACES = {"slerp": "clip", "fusion_diff": "fused"}
UPLOADS = 200
"""Different images among the uploads."""
JITTER = 0.3
"""Length of what is added to a copy's unit vectors."""
TEXTS = ("in brown", "with tears", "as a drawing", "smaller", "with a hat", "at night", "in red", "made of wood")


@dataclass(frozen=True)
class Load:
    """What is asked."""

    rate: float
    """Slerp searches a second by ids of the gallery."""
    upload_rate: float
    """Slerp searches a second by uploads."""
    seconds: float
    """For how long, each."""
    together: int
    """Fusion-Diff searches that start together."""


def make_gallery(project: Path, out: Path, images: int) -> list[str]:
    """Lay a project's folder with a gallery of so many images into `out`. Returns some of its ids."""
    shutil.copy(project / "params.yaml", out)
    (out / "models").symlink_to((project / "models").resolve())
    table = ShardSet.open(project / f"data/benchmarks/{SOURCE}/images").table()
    copies = -(-images // len(table))
    ids = pa.array([f"{number}/{name}" for number in range(copies) for name in table["image_id"].to_pylist()][:images])
    repeated = pa.concat_tables([table] * copies)[:images]
    index = repeated.schema.get_field_index("image_id")
    write_table(out / f"data/benchmarks/{NAME}/images", repeated.set_column(index, "image_id", ids), {})
    params, random = load_params(out / "params.yaml"), np.random.default_rng(0)
    for space in SPACES.values():
        shards = ShardSet.open(project / f"data/gallery/{SOURCE}/{space}")
        column = shards.table(["vector"])["vector"].combine_chunks()
        base = column.flatten().to_numpy().reshape(len(column), -1)
        vectors = np.concatenate([base] * copies)[:images].astype(np.float32)
        noise = random.standard_normal(vectors.shape, dtype=np.float32)
        vectors += JITTER * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        rows = pa.table({"id": ids, "vector": flat}).cast(schemas.embeddings(vectors.shape[1]))
        write_table(out / f"gallery/{space}", rows, shards.identity)
        build_index(out / f"gallery/{space}", out / f"data/index/{NAME}/{space}", params.index)
    return ids.to_pylist()[:: max(1, images // 997)]


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """`cir serve` over the gallery, as a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "pipeline.app.cli.main", "serve", "--gallery", NAME, "--no-page"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [*command, "--port", str(port)], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError("`cir serve` ended before it served")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


async def ask(http: httpx.AsyncClient, reference: dict[str, str], text: str, method: str) -> int:
    """One search. Returns the status; 0 where nothing came back."""
    sent = {"references": [reference], "text": text, "method": method}
    try:
        return (await http.post("/v1/search", json=sent)).status_code
    except httpx.HTTPError:
        return 0


async def steady(
    http: httpx.AsyncClient, references: list[dict[str, str]], rate: float, seconds: float
) -> dict[str, Any]:
    """So many slerp searches a second, by the clock."""
    count, start = int(rate * seconds), time.perf_counter() + 0.1
    latencies, statuses = [], []

    async def one(number: int) -> None:
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        reference, text = references[number % len(references)], f"{TEXTS[number % len(TEXTS)]} {number}"
        statuses.append(await ask(http, reference, text, "slerp"))
        latencies.append(time.perf_counter() - due)

    await asyncio.gather(*(one(number) for number in range(count)))
    taken = time.perf_counter() - start
    return {
        "searches": count,
        "asked_per_second": rate,
        "answered_per_second": round(statuses.count(200) / taken, 1),
        "answered": statuses.count(200),
        "ms": {f"p{at}": round(1000 * float(np.percentile(latencies, at)), 1) for at in (50, 95, 99, 100)},
    }


async def at_once(http: httpx.AsyncClient, references: list[dict[str, str]], count: int) -> dict[str, Any]:
    """So many Fusion-Diff searches that start together."""
    start = time.perf_counter()
    statuses = await asyncio.gather(
        *(
            ask(http, references[number % len(references)], TEXTS[number % len(TEXTS)], "fusion_diff")
            for number in range(count)
        )
    )
    return {
        "searches": count,
        "answered": statuses.count(200),
        "seconds": round(time.perf_counter() - start, 2),
    }


async def measure(url: str, ids: list[str], load: Load) -> dict[str, Any]:
    """All loads, after a few searches that warm up."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
        named = [{"id": image_id} for image_id in ids]
        files = [(await http.get(f"/v1/images/{quote(image_id)}")).content for image_id in ids[:UPLOADS]]
        uploads = [{"image": base64.b64encode(file).decode()} for file in files]
        for method in SPACES:
            for reference in named[:5] + uploads[:5]:
                await ask(http, reference, TEXTS[0], method)
        return {
            "slerp": await steady(http, named, load.rate, load.seconds),
            "slerp_uploads": await steady(http, uploads, load.upload_rate, load.seconds),
            "fusion_diff": await at_once(http, named, load.together),
        }


def main(
    images: Annotated[int, typer.Option(min=1, help="In the gallery.")] = 100_000,
    rate: Annotated[float, typer.Option(min=0.1, help="Slerp searches a second.")] = 50.0,
    upload_rate: Annotated[float, typer.Option(min=0.1, help="Slerp searches a second by uploads.")] = 20.0,
    seconds: Annotated[float, typer.Option(min=1, help="For how long, each.")] = 30.0,
    together: Annotated[int, typer.Option(min=1, help="Fusion-Diff searches that start together.")] = 20,
    out: Annotated[Path, typer.Option(help="The result.")] = Path("reports/bench/service.json"),
) -> None:
    load_at_start = [round(value, 1) for value in os.getloadavg()[:2]]
    load = Load(rate, upload_rate, seconds, together)
    with tempfile.TemporaryDirectory() as place:
        ids = make_gallery(Path(), Path(place), images)
        with serving(Path(place)) as url:
            found = asyncio.run(measure(url, ids, load))
    options = f"--images {images} --rate {rate:g} --upload-rate {upload_rate:g} --seconds {seconds:g}"
    command = f"python -m bench.service {options} --together {together}"
    result = {
        "command": command,
        "images": images,
        "hardware": hardware(),
        "versions": versions("torch", "faiss-cpu", "fastapi", "uvicorn"),
        "load_at_start": load_at_start,
        **found,
    }
    write_json(out, result)
    typer.echo(json.dumps(found))


if __name__ == "__main__":
    typer.run(main)

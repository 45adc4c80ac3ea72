"""A tiny random f_M on disk, and images to feed it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from bench.bare_vllm import Rows
from pipeline.artifacts import ShardSet, schemas, write_table
from pipeline.config import CaptionerParams, EmbedderParams, SmallMllmParams
from pipeline.encoders.embedding.rows import EncoderRow
from pipeline.encoders.mllm.small_qwen import build_model, make_processor, save_model, train_tokenizer
from pipeline.encoders.mllm.transformers_backend import TransformersMllm
from tests.sections import section

IMAGE_SIZE = 32
TEXTS = ["a red ball", "a blue ball on the grass", "An emoji of a green apple, under food fruit.", "make it black"]


@pytest.fixture(scope="session")
def tiny_sizes() -> SmallMllmParams:
    return section(
        SmallMllmParams,
        vocabulary=400,
        width=64,
        layers=2,
        heads=2,
        ffn=96,
        vision_width=32,
        vision_layers=2,
        vision_heads=2,
        vision_ffn=48,
    )


@pytest.fixture(scope="session")
def tiny_params(tiny_sizes: SmallMllmParams, tmp_path_factory: pytest.TempPathFactory) -> EmbedderParams:
    """Parameters whose path is the folder of a tiny random Qwen2.5-VL."""
    folder = tmp_path_factory.mktemp("tiny") / "mllm"
    params, writer = section(EmbedderParams, path=str(folder), batch_size=3), section(CaptionerParams)
    tokenizer = train_tokenizer(TEXTS * 4 + [writer.chat_template, writer.caption_prompt], tiny_sizes.vocabulary)
    torch.manual_seed(0)
    save_model(folder, build_model(tiny_sizes, tokenizer), make_processor(tokenizer, tiny_sizes, IMAGE_SIZE))
    return params


@pytest.fixture(scope="session")
def tiny_mllm(tiny_params: EmbedderParams) -> TransformersMllm:
    return TransformersMllm(tiny_params, "cpu")


@pytest.fixture(scope="session")
def tiny_writer(tiny_params: EmbedderParams) -> TransformersMllm:
    """The same model where it writes."""
    return TransformersMllm(section(CaptionerParams, path=tiny_params.path, max_new_tokens=4), "cpu")


class Make:
    """What the tests of this folder build their inputs from."""

    texts = TEXTS
    image_size = IMAGE_SIZE
    reader = Rows

    @staticmethod
    def png(seed: int, size: int = IMAGE_SIZE, mode: str = "RGB") -> bytes:
        """An image of noise, encoded."""
        pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
        return buffer.getvalue()

    @staticmethod
    def rows(count: int) -> list[EncoderRow]:
        return [EncoderRow(f"row-{n}", TEXTS[n % len(TEXTS)], Make.png(n), f"image-{n}") for n in range(count)]

    @staticmethod
    def images(folder: Path, ids: list[str], rows_per_shard: int = 10_000) -> ShardSet:
        rows = [
            {"image_id": image_id, "bytes": Make.png(n), "width": IMAGE_SIZE, "height": IMAGE_SIZE}
            for n, image_id in enumerate(ids)
        ]
        write_table(folder, pa.Table.from_pylist(rows, schemas.IMAGES), {}, rows_per_shard)
        return ShardSet.open(folder)

    @staticmethod
    def pairs(folder: Path, ids: list[str], kinds: tuple[str, ...] = ("long", "short")) -> ShardSet:
        rows = [
            {
                "pair_id": f"{image_id}/{kind}",
                "image_id": image_id,
                "caption": f"the {kind} caption of {image_id}",
                "caption_kind": kind,
                "phrases": [],
            }
            for image_id in ids
            for kind in kinds
        ]
        write_table(folder, pa.Table.from_pylist(rows, schemas.PAIRS), {})
        return ShardSet.open(folder)


@pytest.fixture(scope="session")
def make() -> type[Make]:
    return Make

"""A folder with a few images, tiny tables and a dual encoder of a few thousand weights."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from pipeline.artifacts import schemas, write_table
from pipeline.config import load_params
from pipeline.encoders.dual.clip import ClipEncoder, ClipSizes, new_clip
from pipeline.encoders.identity import mllm_identity, text_encoder_identity
from tests.sections import plain_values

WORDS = ["[PAD]", "[EOS]", "[UNK]", "a", "red", "blue", "green", "ball", "cat", "dog", "with", "hat"]
COLOURS, THINGS = ("red", "blue", "green"), ("ball", "cat", "dog", "hat")
DIM, TEXT_DIM = 16, 8
TRAINING = {"steps": 2, "batch_size": 4, "log_every": 1, "precision": "fp32", "warmup_steps": 0}
VALUES = {
    "runtime": {"threads": 1, "device": "cpu"},
    "embedder": {"path": "models/backbones/mllm", "batch_size": 5},
    "text_encoder": {"kind": "huggingface", "path": "texts", "dim": TEXT_DIM, "max_tokens": 6},
    "prior": {
        **TRAINING,
        "channels": 2,
        "grid": 4,
        "patch_size": 2,
        "width": 16,
        "heads": 2,
        "depth": 2,
        "time_frequencies": 8,
    },
    "control": TRAINING,
    "diffcomp": {
        **TRAINING,
        "backbone": "models/backbones/clip",
        "image_layers": 1,
        "text_layers": 1,
        "super_patch": 2,
    },
    "diffcomp_variants": {"diffcomp_row1": {"css": False, "psm": False, "dac": False}, "diffcomp": {}},
    "retrieve": {"solver_steps": 2, "batch_size": 3, "hypotheses": 2, "top_k": 5},
}


def make_image(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (20 * number, 255 - 20 * number, 90)).save(buffer, "PNG")
    return buffer.getvalue()


def unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_vectors(folder: str, ids: list[str], seed: int, identity: dict) -> None:
    rows = [{"id": name, "vector": vector.tolist()} for name, vector in zip(ids, unit(len(ids), seed), strict=True)]
    write_table(folder, pa.Table.from_pylist(rows, schema=schemas.embeddings(DIM)), identity)


def write_conditions(folder: str, ids: list[str], identity: dict) -> None:
    rows = [
        {"id": name, "tokens": 2, "states": np.full(2 * TEXT_DIM, 0.1 * row, np.float16)}
        for row, name in enumerate(ids)
    ]
    write_table(folder, pa.Table.from_pylist(rows, schema=schemas.conditions(TEXT_DIM)), identity)


def write_clip(folder: Path) -> None:
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A [EOS]", special_tokens=[("[EOS]", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", eos_token="[EOS]", unk_token="[UNK]")
    sizes = {
        "vocab_size": len(WORDS),
        "eos_id": 1,
        "image_size": 32,
        "patch_size": 8,
        "vision_width": 32,
        "vision_layers": 2,
        "head_width": 16,
        "text_width": 32,
        "text_layers": 2,
        "text_heads": 2,
        "embed_dim": DIM,
        "context": 8,
    }
    torch.manual_seed(0)
    ClipEncoder(new_clip(sizes), tokenizer, ClipSizes(**sizes).model_cfg()).save(folder)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Everything up to the training stages, in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(plain_values(**VALUES)))
    params = load_params()
    ids = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
    images = [
        {"image_id": name, "bytes": make_image(number), "width": 32, "height": 32} for number, name in enumerate(ids)
    ]
    texts = [
        {
            "pair_id": f"{name}/{kind}",
            "image_id": name,
            "caption": f"a {name}",
            "caption_kind": kind,
            "phrases": name.split(),
        }
        for name in ids
        for kind in ("long", "short")
    ]
    write_table("data/pairs/images", pa.Table.from_pylist(images, schema=schemas.IMAGES), {})
    write_table("data/texts/pairs", pa.Table.from_pylist(texts, schema=schemas.PAIRS), {})
    embedded, encoded = mllm_identity(params.embedder), text_encoder_identity(params.text_encoder, params.embedder)
    write_vectors("data/fused/pairs", ids, 0, embedded)
    write_conditions("data/fused/pairs_text", ids, encoded)
    for number, side in enumerate(("query", "target", "description"), start=1):
        write_vectors(f"data/fused/triplets_{side}", ids[:6], number, embedded)
    write_conditions("data/fused/triplets_text", ids[:6], encoded)
    write_clip(Path("models/backbones/clip"))
    yield params
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)

"""Gallery vectors of a dual encoder: images in, a shard set of embeddings out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.artifacts import ShardWriter, finished_set, schemas
from pipeline.encoders.dual.interface import DualEncoder
from pipeline.encoders.image_source import ImageTable
from pipeline.encoders.mllm.interface import batches


@torch.inference_mode()
def encode_in_batches(
    encode: Callable[[Sequence[Any]], Tensor], items: Sequence[Any], batch_size: int, title: str
) -> np.ndarray:
    """`encode` over consecutive batches of `items` -> float32 [N, d]."""
    progress = tqdm(list(batches(items, batch_size)), desc=title, mininterval=5.0, delay=1.0)
    return np.concatenate([encode(batch).float().cpu().numpy() for batch in progress])


def encode_images(encoder: DualEncoder, pictures: ImageTable, image_ids: Sequence[str]) -> Tensor:
    """f_I [B, D], L2-normalised, on the encoder's device."""
    return encoder.encode_image(encoder.normalise(pictures.pixels(image_ids, encoder.image_size)))


def embed_gallery(
    encoder: DualEncoder,
    pictures: ImageTable,
    out: str | Path,
    identity: dict[str, Any],
    batch_size: int,
    rows_per_shard: int = 10_000,
) -> None:
    """Every image's global feature as `schemas.embeddings`, in gallery order.

    A finished set of the same identity is left alone; a killed run goes on after its last whole shard.
    No batch reaches over a shard's end, so that both make the same batches.
    """
    if finished_set(out, schemas.embeddings(encoder.dim), identity):
        return
    writer = ShardWriter(out, schemas.embeddings(encoder.dim), identity, rows_per_shard, resume=True)
    starts = range(writer.rows_done, len(pictures), rows_per_shard)
    left = [batch for start in starts for batch in batches(pictures.ids[start : start + rows_per_shard], batch_size)]
    for image_ids in tqdm(left, desc=str(out), mininterval=5.0):
        with torch.inference_mode():
            vectors = encode_images(encoder, pictures, image_ids).float().cpu().numpy()
        flat = pa.array(vectors.reshape(-1), pa.float32())
        columns = [pa.array(image_ids, pa.string()), pa.FixedSizeListArray.from_arrays(flat, encoder.dim)]
        writer.write(pa.Table.from_arrays(columns, schema=writer.schema))
    writer.close()

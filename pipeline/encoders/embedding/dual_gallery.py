"""Gallery vectors of a dual encoder: images in, a shard set of embeddings out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.artifacts import ShardWriter, finished_set, schemas
from pipeline.encoders.batching import batches
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.encoders.embedding.shared_blocks import SharingEncoder
from pipeline.encoders.image_source import ImageTable


def encode_images(encoder: ImageTextEncoder | SharingEncoder, images: ImageTable, image_ids: Sequence[str]) -> Tensor:
    """Global features f_I of B images.

    Returns:
        [B, D], L2-normalised, on the encoder's device.
    """
    if isinstance(encoder, SharingEncoder):
        return encoder.encode(images, image_ids)
    return encoder.encode_image(encoder.normalise(images.pixels(image_ids, encoder.image_size, encoder.fit)))


def embed_gallery(
    encoder: ImageTextEncoder | SharingEncoder,
    images: ImageTable,
    out: str | Path,
    identity: dict[str, Any],
    batch_size: int,
    rows_per_shard: int = 10_000,
) -> None:
    """Write every image's global feature as `schemas.embeddings`, in gallery order.

    A finished set of the same identity is left alone. A killed run goes on after its last whole shard.
    No batch reaches over a shard's end, so that both make the same batches.

    Args:
        encoder: Makes the features.
        images: The gallery.
        out: Where the shard set goes.
        identity: Everything that the features depend on.
        batch_size: Images that are encoded at once.
        rows_per_shard: Rows a shard.
    """
    if finished_set(out, schemas.embeddings(encoder.dim), identity):
        return
    writer = ShardWriter(out, schemas.embeddings(encoder.dim), identity, rows_per_shard, resume=True)
    starts = range(writer.rows_done, len(images), rows_per_shard)
    left = [batch for start in starts for batch in batches(images.ids[start : start + rows_per_shard], batch_size)]
    with tqdm(total=sum(map(len, left)), desc=str(out), unit="image", mininterval=5.0) as progress:
        for image_ids in left:
            with torch.inference_mode():
                vectors = encode_images(encoder, images, image_ids).float().cpu().numpy()  # [B, D]
            flat = pa.array(vectors.reshape(-1), pa.float32())
            columns = [pa.array(image_ids, pa.string()), pa.FixedSizeListArray.from_arrays(flat, encoder.dim)]
            writer.write(pa.Table.from_arrays(columns, schema=writer.schema))
            progress.update(len(image_ids))
    writer.close()

"""The job that embeds: every row's vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from pipeline.artifacts import schemas
from pipeline.encoders.embedding.decoding import rows_decoder
from pipeline.encoders.embedding.rows import EncoderRow, EncodingError
from pipeline.encoders.embedding.slices import EncoderJob
from pipeline.encoders.mllm.interface import Embedder, MllmInput, starter


def embedding_job(embedder: Embedder, decode: Callable[[EncoderRow], MllmInput] | None = None) -> EncoderJob:
    """The job whose results are an embedder's vectors, stored as `schemas.embeddings`.

    Args:
        embedder: f_M, or anything else with `dim` and `embed`.
        decode: A row -> what the embedder sees; None: `rows.decode`.

    Returns:
        The job. It raises EncodingError naming a row whose vector is not finite.
    """
    dim = embedder.dim
    schema = schemas.embeddings(dim)

    def encode(rows: Sequence[EncoderRow], inputs: Sequence[MllmInput]) -> np.ndarray:
        vectors = embedder.embed(inputs)  # [B, d]
        for row, finite in zip(rows, np.isfinite(vectors).all(axis=1), strict=True):
            if not finite:
                raise EncodingError(f"row {row.id!r}: its embedding has a number that is not finite")
        return vectors

    def table(rows: Sequence[EncoderRow], vectors: Sequence[np.ndarray]) -> pa.Table:
        flat = pa.array(np.concatenate(vectors).astype(np.float32))  # [N * d]
        ids = pa.array([row.id for row in rows], pa.string())
        return pa.Table.from_arrays([ids, pa.FixedSizeListArray.from_arrays(flat, dim)], schema=schema)

    return EncoderJob(schema, encode, table, rows_decoder(embedder, "embed", decode), starter(embedder, "embed"))

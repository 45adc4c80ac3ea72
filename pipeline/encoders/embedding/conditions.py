"""The job that encodes texts: every row's token states, which condition the prior."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.artifacts import Manifest, schemas
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.rows import EncoderRow, Reader
from pipeline.encoders.embedding.slices import EncoderJob
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.encoders.text import TextEncoder


def condition_job(encoder: TextEncoder) -> EncoderJob:
    """The job whose results are E_text's token states [T_i, dim], stored as `schemas.conditions`."""
    schema = schemas.conditions(encoder.dim)

    def encode(rows: Sequence[EncoderRow], inputs: Sequence[MllmInput]) -> list[np.ndarray]:
        return [states.numpy() for states in encoder.encode_batch([one.text for one in inputs])]

    def table(rows: Sequence[EncoderRow], states: Sequence[np.ndarray]) -> pa.Table:
        lengths = np.array([len(one) for one in states], np.int32)
        offsets = np.concatenate([[0], np.cumsum(lengths.astype(np.int64) * encoder.dim)])
        flat = pa.array(np.concatenate([one.reshape(-1) for one in states]))
        ids = pa.array([row.id for row in rows], pa.string())
        return pa.Table.from_arrays(
            [ids, pa.array(lengths), pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)], schema=schema
        )

    return EncoderJob(schema, encode, table)


def run_condition_job(
    reader: Reader, encoder: TextEncoder, folder: str | Path, identity: dict[str, Any], options: JobOptions
) -> Manifest:
    """Encode every row's text into a shard set; see `run_job`. One warning counts the texts that were cut."""
    before = encoder.truncated
    manifest = run_job(reader, condition_job(encoder), folder, identity, options)
    encoder.warn_truncated(before)
    return manifest

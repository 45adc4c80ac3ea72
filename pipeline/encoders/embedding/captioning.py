"""The job that writes captions: f_M's long caption of every image."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from pipeline.artifacts import schemas
from pipeline.config import CaptionerParams
from pipeline.encoders.embedding.decoding import rows_decoder
from pipeline.encoders.embedding.readers import PairChoice
from pipeline.encoders.embedding.rows import EncoderRow, EncodingError
from pipeline.encoders.embedding.slices import EncoderJob
from pipeline.encoders.mllm.interface import Generator, MllmInput, starter


def captioning_rows(params: CaptionerParams) -> PairChoice:
    """What a `PairReader` asks of every image: the prompt for its caption, under the id of the long pair."""
    return PairChoice(
        lambda image_id, captions: [EncoderRow(f"{image_id}/long", params.caption_prompt)], lambda image_id, kinds: 1
    )


def captioning_job(mllm: Generator, params: CaptionerParams) -> EncoderJob:
    """The job whose results are generated captions, stored as `schemas.PAIRS`.

    Args:
        mllm: Writes the captions.
        params: Bounds their length.

    Returns:
        The job, for the rows of `captioning_rows`. It raises EncodingError naming a row whose caption is empty.
    """

    def encode(rows: Sequence[EncoderRow], inputs: Sequence[MllmInput]) -> list[str]:
        captions = [answers[0] for answers in mllm.generate(inputs, params.max_new_tokens)]
        for row, caption in zip(rows, captions, strict=True):
            if not caption.strip():
                raise EncodingError(f"row {row.id!r}: the generated caption is empty")
        return captions

    def table(rows: Sequence[EncoderRow], captions: Sequence[str]) -> pa.Table:
        pairs = [
            {"pair_id": row.id, "image_id": row.image_id, "caption": caption, "caption_kind": "long", "phrases": []}
            for row, caption in zip(rows, captions, strict=True)
        ]
        return pa.Table.from_pylist(pairs, schemas.PAIRS)

    return EncoderJob(schemas.PAIRS, encode, table, rows_decoder(mllm, "generate"), starter(mllm, "generate"))

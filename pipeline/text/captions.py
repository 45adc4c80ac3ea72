"""Captions: the long ones that f_M generates, and which one a training pair takes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pyarrow as pa

from pipeline.artifacts import schemas
from pipeline.config import EncoderParams
from pipeline.encoders.job import EncoderJob, EncoderRow, EncodingError
from pipeline.encoders.mllm import Mllm, MllmInput
from pipeline.encoders.readers import Captions, Choose
from pipeline.text.phrases import PhraseParser


def caption_job(mllm: Mllm, params: EncoderParams, phrases: PhraseParser) -> EncoderJob:
    """Rows of `captioning` -> a generated long and the given short row of every image, with their phrases.

    Raises EncodingError naming the row whose caption is empty.
    """

    def encode(rows: Sequence[EncoderRow], inputs: Sequence[MllmInput]) -> list[str]:
        captions = [answers[0] for answers in mllm.generate(inputs, params.max_new_tokens)]
        for row, caption in zip(rows, captions, strict=True):
            if not caption.strip():
                raise EncodingError(f"row {row.id!r}: the generated caption is empty")
        return captions

    def table(rows: Sequence[EncoderRow], captions: Sequence[str]) -> pa.Table:
        pairs = []
        for row, caption in zip(rows, captions, strict=True):
            pairs.append({"pair_id": row.id, "image_id": row.image_id, "caption": caption, "caption_kind": "long"})
            pairs.append({**row.note, "caption_kind": "short"})
        found = phrases.phrases([pair["caption"] for pair in pairs])
        return pa.Table.from_pylist([{**pair, "phrases": names} for pair, names in zip(pairs, found, strict=True)], schemas.PAIRS)

    return EncoderJob(schemas.PAIRS, encode, table, rows_per_input=2)


def captioning(params: EncoderParams) -> Choose:
    """The input of `caption_job` for an image: the prompt, and its short row as the note."""

    def choose(image_id: str, captions: Captions) -> EncoderRow:
        short = captions.get("short")
        if short is None:
            raise EncodingError(f"image {image_id!r}: there is no short caption")
        if not (short["caption"] or "").strip():
            raise EncodingError(f"row {short['pair_id']!r}: the caption is empty")
        return EncoderRow(f"{image_id}/long", params.caption_prompt, note=short)

    return choose


def one_caption(long_share: float, seed: int) -> Choose:
    """The pair that an image trains with: its long caption with probability `long_share`, else its short one."""

    def choose(image_id: str, captions: Captions) -> EncoderRow:
        kind = "long" if _draw(seed, image_id) < long_share else "short"
        if kind not in captions:
            raise EncodingError(f"image {image_id!r}: there is no {kind} caption")
        return EncoderRow(captions[kind]["pair_id"], captions[kind]["caption"])

    return choose


def _draw(seed: int, image_id: str) -> float:
    """In [0, 1), a function of its arguments: not of the order or number of images."""
    digest = hashlib.sha256(f"caption/{seed}/{image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64

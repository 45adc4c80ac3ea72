"""Captions: the long ones that f_M generates, and which pairs they replace the short ones in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from pipeline.artifacts import schemas
from pipeline.config import EncoderParams
from pipeline.encoders.embedding.job import EncoderJob, EncoderRow, EncodingError, decoding
from pipeline.encoders.embedding.readers import Captions, Choose
from pipeline.encoders.mllm.interface import Mllm, MllmInput
from pipeline.text.phrases import PhraseParser


def takes_long(image_id: str, long_share: float, seed: int) -> bool:
    """Whether an image trains with a long caption: true for `long_share` of them, whatever their order or number."""
    digest = hashlib.sha256(f"caption/{seed}/{image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < long_share


def without_caption(captions: Captions) -> bool:
    """Whether a pair was left to the captioning model by its source."""
    return "short" in captions and not (captions["short"]["caption"] or "").strip()


def captioning(params: EncoderParams) -> Choose:
    """The input of `caption_job` for an image."""
    return lambda image_id, captions: EncoderRow(f"{image_id}/long", params.caption_prompt)


def caption_job(mllm: Mllm, params: EncoderParams) -> EncoderJob:
    """Rows of `captioning` -> a generated long pair each. Raises EncodingError naming the row whose caption is empty."""

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

    return EncoderJob(schemas.PAIRS, encode, table, decoding(mllm, "generate"))


def merged(
    images: Iterable[tuple[str, Captions]], generated: Iterable[dict[str, Any]], parser: PhraseParser
) -> pa.Table:
    """The given short row of every image, after its generated long one where there is one, with their phrases.

    An empty short caption is left out where there is a long one. Raises EncodingError naming the
    image without a row of a short caption, or the row whose caption is empty.
    """
    long = {row["image_id"]: row for row in generated}
    rows = []
    for image_id, captions in images:
        short = captions.get("short")
        if short is None:
            raise EncodingError(f"image {image_id!r}: there is no short caption")
        if not without_caption(captions):
            rows += [long[image_id], short] if image_id in long else [short]
        elif image_id in long:
            rows.append(long[image_id])
        else:
            raise EncodingError(f"row {short['pair_id']!r}: the caption is empty")
    found = parser.phrases([row["caption"] for row in rows])
    return pa.Table.from_pylist(
        [{**row, "phrases": phrases} for row, phrases in zip(rows, found, strict=True)], schemas.PAIRS
    )


def training_caption(image_id: str, captions: Captions) -> EncoderRow:
    """The pair that an image trains with: its long caption where it has one."""
    pair = captions.get("long") or captions["short"]
    return EncoderRow(pair["pair_id"], pair["caption"])

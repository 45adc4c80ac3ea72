"""Captions of the pairs table: which image takes a long one, and how generated ones join the given ones."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Protocol

import pyarrow as pa

from pipeline.artifacts import ShardSet, schemas

Captions = dict[str, list[dict[str, Any]]]
"""An image's rows of the pairs table by caption kind (`short`, `long`), in their order."""


class CaptionError(ValueError):
    """A caption that is missing or empty."""


class ParsesPhrases(Protocol):
    """What finds the phrases of texts; see `PhraseParser`."""

    def phrases(self, texts: list[str]) -> list[list[str]]:
        """The phrases of every text."""


def captions_by_image(pairs: ShardSet, skip: Collection[str] = (), first: int = 0) -> Iterator[tuple[str, Captions]]:
    """Images with their captions, in the order of the pairs table.

    Args:
        pairs: A table of `schemas.PAIRS`. An image's rows stand together.
        skip: Ids of images that are left out.
        first: The number of the shard to begin with.

    Yields:
        An image's id and its captions.
    """
    rows = (row for table in pairs.from_shard(first).shards() for row in table.to_pylist())
    for image_id, group in itertools.groupby(rows, key=lambda row: row["image_id"]):
        captions: Captions = {}
        for row in group:
            captions.setdefault(row["caption_kind"], []).append(row)
        if image_id not in skip:
            yield image_id, captions


def takes_long(image_id: str, long_share: float, seed: int) -> bool:
    """Whether an image trains with a long caption.

    Args:
        image_id: The image.
        long_share: The share of images that do, in [0, 1].
        seed: Chooses which.

    Returns:
        True for about `long_share` of the images, whatever their order or number.
    """
    digest = hashlib.sha256(f"caption/{seed}/{image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < long_share


def lacks_caption(captions: Captions) -> bool:
    """Whether the source left an image's caption empty, for the captioning model to write."""
    return "short" in captions and not _given(captions["short"])


def _given(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if (row["caption"] or "").strip()]


def training_pairs(captions: Captions) -> list[dict[str, Any]]:
    """The rows of the pairs table that an image trains with: its long caption where it has one, else all short ones."""
    return captions.get("long") or captions["short"]


def merge_captions(
    images: Iterable[tuple[str, Captions]], generated: Iterable[dict[str, Any]], parser: ParsesPhrases
) -> pa.Table:
    """Join generated captions to the given ones, and find the phrases of all.

    Args:
        images: As `captions_by_image` yields them.
        generated: Long rows of the pairs table.
        parser: Finds the phrases.

    Returns:
        A table of `schemas.PAIRS`: every image's short rows, after its generated long one where there is one. An
        empty short caption is left out where there is another one.

    Raises:
        CaptionError: An image has no row of a short caption, or a caption is empty.
    """
    long = {row["image_id"]: row for row in generated}
    rows = []
    for image_id, captions in images:
        short = captions.get("short")
        if short is None:
            raise CaptionError(f"image {image_id!r}: there is no short caption")
        if not lacks_caption(captions):
            rows += [*([long[image_id]] if image_id in long else []), *_given(short)]
        elif image_id in long:
            rows.append(long[image_id])
        else:
            raise CaptionError(f"row {short[0]['pair_id']!r}: the caption is empty")
    found = parser.phrases([row["caption"] for row in rows])
    return pa.Table.from_pylist(
        [{**row, "phrases": phrases} for row, phrases in zip(rows, found, strict=True)], schemas.PAIRS
    )

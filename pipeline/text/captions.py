"""Captions of the pairs table.

Which image takes a long one, how generated ones join the given ones, and which pairs Stage 1 and DiffComp learn from.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol, cast

import pyarrow as pa

from pipeline.artifacts import Manifest, ShardSet, ShardWriter, schemas
from pipeline.config import DiffCompDataParams, PriorDataParams

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
    return _draw(f"caption/{seed}/{image_id}") < long_share


def _draw(name: str) -> float:
    """A number from [0, 1) that belongs to a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def lacks_caption(captions: Captions) -> bool:
    """Whether the source left an image's caption empty, for the captioning model to write."""
    return "short" in captions and not _given(captions["short"])


def _given(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if (row["caption"] or "").strip()]


def is_learned(image_id: str, data: PriorDataParams) -> bool:
    """Whether Stage 1 learns from an image: from one of its sources."""
    return not data.sources or source_of(image_id) in data.sources


def training_kinds(image_id: str, kinds: Collection[str], data: PriorDataParams) -> list[str]:
    """The kinds of caption that an image trains Stage 1 with.

    Args:
        image_id: The image.
        kinds: Those of which it has captions.
        data: Says which images train, and which of them with short captions beside the long one.

    Returns:
        long where there is one, else short; of chosen images both; none of an image that is not learned from.
    """
    if not is_learned(image_id, data):
        return []
    if "long" not in kinds:
        return ["short"]
    drawn = data.short_share > 0 and source_of(image_id) in data.short_sources
    both = drawn and "short" in kinds and _draw(f"short/{data.seed}/{image_id}") < data.short_share
    return ["long", "short"] if both else ["long"]


def source_of(image_id: str) -> str:
    """The source of web pairs that an image comes from."""
    return image_id.split("/")[0]


def in_share(pair: Mapping[str, Any], data: DiffCompDataParams) -> bool:
    """Whether DiffComp learns from a row of the pairs table: from short captions of its sources, or a share of them.

    Args:
        pair: The row.
        data: The sources, the share and its seed.

    Returns:
        The same answer whatever other rows there are.
    """
    if pair["caption_kind"] != "short" or (data.sources and source_of(pair["image_id"]) not in data.sources):
        return False
    return data.share >= 1 or _draw(f"diffcomp/{data.seed}/{pair['pair_id']}") < data.share


def share_of(texts: ShardSet, data: DiffCompDataParams) -> list[dict[str, Any]]:
    """The rows of the pairs table that DiffComp learns from, in order; only they are in memory. See `in_share`."""
    return [row for table in texts.shards() for row in table.to_pylist() if in_share(row, data)]


def merged_rows(
    images: Iterable[tuple[str, Captions]], generated: Iterable[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Join generated captions to the given ones.

    Args:
        images: As `captions_by_image` yields them.
        generated: Long rows of the pairs table, in the order of these images.

    Yields:
        Every image's short rows, after its generated long one where there is one. An empty short caption is left out
        where there is another one.

    Raises:
        CaptionError: An image has no row of a short caption, a caption is empty, or a generated one is of an image that
            does not come after those before.
    """
    waiting = iter(generated)
    long = next(waiting, None)
    for image_id, captions in images:
        short = captions.get("short")
        if short is None:
            raise CaptionError(f"image {image_id!r}: there is no short caption")
        is_generated = long is not None and long["image_id"] == image_id
        if is_generated:
            yield cast(dict[str, Any], long)
            long = next(waiting, None)
        elif lacks_caption(captions):
            raise CaptionError(f"row {short[0]['pair_id']!r}: the caption is empty")
        yield from _given(short)
    if long is not None:
        raise CaptionError(f"row {long['pair_id']!r}: its image is not among the images that follow the ones before")


def write_texts(
    rows: Iterable[dict[str, Any]],
    writer: ShardWriter,
    parser: ParsesPhrases,
    wanted: Callable[[Mapping[str, Any]], bool],
) -> Manifest:
    """Write rows of the pairs table, a shard of them in memory, with the phrases of those that are asked for.

    Args:
        rows: All of them. Those that the writer has of an earlier run are passed over.
        writer: Of `schemas.PAIRS`.
        parser: Finds the phrases.
        wanted: Whether a row's phrases are needed.

    Returns:
        The manifest of the finished set.
    """
    left = itertools.islice(rows, writer.rows_done, None)
    while part := list(itertools.islice(left, writer.rows_per_shard)):
        chosen = [row for row in part if wanted(row)]
        found = parser.phrases([row["caption"] for row in chosen])
        phrases = {row["pair_id"]: one for row, one in zip(chosen, found, strict=True)}
        writer.write(
            pa.Table.from_pylist([{**row, "phrases": phrases.get(row["pair_id"], [])} for row in part], schemas.PAIRS)
        )
    return writer.close()

"""Emoji-CIR: from the packages to the canonical tables."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa

from pipeline.artifacts import schemas
from pipeline.config import DataParams
from pipeline.sources.emoji import wordings
from pipeline.sources.emoji.artwork import NOTO_TEAM, OPENMOJI_TEAM, TWEMOJI_TEAM, Team, read_team, to_png
from pipeline.sources.emoji.captions import long_caption, short_caption
from pipeline.sources.emoji.cldr import Emoji, read_emoji
from pipeline.sources.emoji.fetch import PACKAGES, fetch
from pipeline.sources.emoji.genecis import build_genecis
from pipeline.sources.emoji.queries import Gallery, build_queries
from pipeline.sources.emoji.split import held_out
from pipeline.sources.emoji.triplets import build_triplets

ImageTable = dict[str, bytes]


def build_tables(params: DataParams, seed: int) -> dict[str, pa.Table]:
    """All tables of the data section, by output folder below `data/`.

    Twemoji is in the benchmark alone; the held-out OpenMoji images are in the validation alone.
    """
    folder = Path(params.fixture) if params.fixture else Path(params.raw)
    if not params.fixture:
        for package in PACKAGES:
            fetch(package, folder)
    emoji = _limited(read_emoji(folder), params.max_images, seed)
    noto, openmoji, twemoji = (
        _images(team, folder, emoji, params.image_size) for team in (NOTO_TEAM, OPENMOJI_TEAM, TWEMOJI_TEAM)
    )
    drawn = [one for one in emoji if one.code in openmoji]
    validation = held_out(drawn, params.val_share, seed)
    training = {
        NOTO_TEAM.name: noto,
        OPENMOJI_TEAM.name: {code: png for code, png in openmoji.items() if code not in validation},
    }
    test_gallery = _gallery(TWEMOJI_TEAM, emoji, twemoji)
    distractors = _distractors(drawn, validation, params.val_distractors, seed)
    val_gallery = _gallery(OPENMOJI_TEAM, emoji, {code: openmoji[code] for code in validation | distractors})
    val_eligible = [one for one in val_gallery.emoji if one.code in validation]
    return {
        "pairs/images": pa.concat_tables(
            images_table(team, found, params.image_size) for team, found in sorted(training.items())
        ),
        "pairs/pairs": pairs_table(emoji, training),
        "triplets/sampled": build_triplets(emoji, training, params.triplets, seed),
        "triplets/all": build_triplets(emoji, training, params.triplets_all, seed),
        "benchmarks/emoji_cir/images": images_table(TWEMOJI_TEAM.name, twemoji, params.image_size),
        "benchmarks/emoji_cir/queries": build_queries(
            test_gallery, test_gallery.emoji, params.queries_per_kind, wordings.TEST, wordings.TEST_OPEN, seed
        ),
        "benchmarks/emoji_cir/genecis": build_genecis(test_gallery, params.queries_per_kind, seed),
        "benchmarks/emoji_cir_val/images": images_table(OPENMOJI_TEAM.name, val_gallery.images, params.image_size),
        "benchmarks/emoji_cir_val/queries": build_queries(
            val_gallery, val_eligible, params.val_queries_per_kind, wordings.VALIDATION, wordings.VALIDATION_OPEN, seed
        ),
    }


def images_table(team: str, images: Mapping[str, bytes], size: int) -> pa.Table:
    """The canonical images of one team, by id."""
    codes = sorted(images)
    columns = [
        [f"{team}/{code}" for code in codes],
        [images[code] for code in codes],
        [size] * len(codes),
        [size] * len(codes),
    ]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schemas.IMAGES, strict=True)],
        schema=schemas.IMAGES,
    )


def pairs_table(emoji: Iterable[Emoji], training: Mapping[str, ImageTable]) -> pa.Table:
    """A short and a long caption for every training image."""
    by_code = {one.code: one for one in emoji}
    rows = [
        {
            "pair_id": f"{team}/{code}/{kind}",
            "image_id": f"{team}/{code}",
            "caption": caption(by_code[code]),
            "caption_kind": kind,
            "phrases": [],
        }
        for team, images in sorted(training.items())
        for code in sorted(images)
        for kind, caption in (("long", long_caption), ("short", short_caption))
    ]
    return pa.Table.from_pylist(rows, schema=schemas.PAIRS)


def _images(team: Team, folder: Path, emoji: list[Emoji], size: int) -> ImageTable:
    files = read_team(team, folder)
    return {one.code: to_png(files[one.code], size, f"{team.name}/{one.code}") for one in emoji if one.code in files}


def _gallery(team: Team, emoji: list[Emoji], images: ImageTable) -> Gallery:
    return Gallery(team.name, tuple(one for one in emoji if one.code in images), images)


def _limited(emoji: list[Emoji], count: int, seed: int) -> list[Emoji]:
    """Whole families, drawn by the seed, up to `count` emoji; all of them for 0."""
    if not count:
        return emoji
    families = sorted({one.family for one in emoji})
    random.Random(f"limit/{seed}").shuffle(families)
    kept: list[Emoji] = []
    for family in families:
        members = [one for one in emoji if one.family == family]
        kept += members if len(kept) + len(members) <= count else []
    return sorted(kept, key=lambda one: one.code)


def _distractors(drawn: list[Emoji], validation: set[str], count: int, seed: int) -> set[str]:
    codes = [one.code for one in drawn if one.code not in validation]
    return set(random.Random(f"distractors/{seed}").sample(codes, min(count, len(codes))))

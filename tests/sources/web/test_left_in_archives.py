"""Images that stay in their archives: the same bytes are read, and an archive that changed is named."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.artifacts import ArtifactError, ShardSet, schemas
from pipeline.artifacts.images import EncodedImages, image_columns, treatment_of
from pipeline.config import DataParams, WebParams
from pipeline.sources.web import build
from tests.sections import section
from tests.sources.web.test_web_pairs import edits, img2dataset, make_image, tar


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Every kind of source with an image or two, below the working folder."""
    monkeypatch.chdir(tmp_path)
    raw = Path("data/raw")
    tar(raw / "cc3m" / "00000.tar", img2dataset(0, "a dog") + img2dataset(1, "a cat"))
    tar(raw / "webdataset" / "packed.tar.gz", img2dataset(2, "a cow"), compress=True)
    (raw / "folder").mkdir()
    (raw / "folder" / "one.jpg").write_bytes(make_image(3))
    (raw / "folder" / "all.csv").write_text("image,caption\none.jpg,a pig\n")
    edits(raw / "hqedit", [(make_image(900), make_image(901), "make it snow", "stop the snow")])
    return raw


def images(raw: Path, copy: bool) -> ShardSet:
    web = section(WebParams, pairs=["cc3m", "webdataset", "folder"], edits=["hqedit"], max_rejected_share=0.0)
    build(section(DataParams, sources="web", raw=str(raw), web=web, copy=copy), 0, Path("data"))
    return ShardSet.open("data/pairs/images")


def encoded(shards: ShardSet) -> list[bytes]:
    return list(EncodedImages(shards.table(image_columns(shards))))


def test_the_same_bytes_are_read_with_and_without_copies(raw):
    copied = encoded(images(raw, copy=True))
    shards = images(raw, copy=False)
    assert encoded(shards) == copied == [make_image(seed) for seed in (0, 1, 2, 3, 900, 901)]
    assert treatment_of(shards) == "shown"


def test_places_are_those_of_the_tar_and_only_what_cannot_be_found_again_is_copied(raw):
    rows = images(raw, copy=False).table().to_pylist()
    with tarfile.open(raw / "cc3m" / "00000.tar") as archive:
        offsets = [member.offset_data for member in archive if member.name.endswith(".jpg")]
    assert [(row["archive"], row["offset"]) for row in rows[:2]] == [
        ("data/raw/cc3m/00000.tar", offset) for offset in offsets
    ]
    assert rows[0]["archive_size"] == os.path.getsize(raw / "cc3m" / "00000.tar")
    assert [row["archive"] for row in rows[2:]] == [None, "data/raw/folder/one.jpg", None, None]
    assert [row["bytes"] is None for row in rows] == [True, True, False, True, False, False]


def test_no_absolute_path_is_stored_where_the_folder_is_given_as_one(raw):
    rows = images(raw.resolve(), copy=False).table().to_pylist()
    assert rows[0]["archive"] == "data/raw/cc3m/00000.tar"


@pytest.mark.parametrize("change", ["gone", "longer"])
def test_an_archive_that_vanished_or_changed_is_named(raw, change):
    shards = images(raw, copy=False)
    path = raw / "cc3m" / "00000.tar"
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + bytes(512))
    with pytest.raises(ArtifactError, match="^data/raw/cc3m/00000.tar: the archive ") as error:
        encoded(shards)
    assert "prepare" in str(error.value)


def test_offsets_beyond_four_gigabytes_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open("large.tar", "wb") as file:  # a sparse file: no disk is filled
        file.seek(5 * 2**30)
        file.write(b"image")
    place = {"archive": "large.tar", "archive_size": 5 * 2**30 + 5, "offset": 5 * 2**30, "length": 5}

    table = pa.Table.from_pylist([{"image_id": "one", "width": 1, "height": 1} | place], schemas.IMAGE_MEMBERS)
    assert EncodedImages(table)[0] == b"image"

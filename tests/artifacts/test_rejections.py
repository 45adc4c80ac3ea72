"""Reasons are counted by kind, whatever the names and numbers in them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.artifacts import ArtifactError
from pipeline.artifacts.rejections import (
    Rejected,
    count_reasons,
    find_rejections,
    kind_of_reason,
    read_rejections,
    summarise,
)

OF_ONE_KIND = [
    ("the image has 501 x 5 pixels: one side is more than 100 times the other",) * 2,
    ("the image has 501 x 5 pixels", "the image has 12000 x 30,000 pixels"),
    ("captions.csv names deep/a b.png, which is not there", "more.csv names deep/c b.png, which is not there"),
    ("00001.tar is damaged: unexpected end of data", "train.00002.tar is damaged: unexpected end of data"),
    ("a second image of the id 'folder/cat.jpg'", "a second image of the id 'it is 5'"),
    ("its id is that of row 17", "its id is that of row 1,800"),
    ("the file has 300 MB, at most 256 MB are read", "the file has 1024.5 MB, at most 256 MB are read"),
]


@pytest.mark.parametrize(("one", "other"), OF_ONE_KIND)
def test_names_and_numbers_make_no_kind_of_their_own(one, other):
    assert kind_of_reason(one) == kind_of_reason(other)


def test_different_reasons_stay_apart():
    reasons = [
        "the image has no bytes",
        "the image cannot be decoded: it is an HTML page",
        "the image cannot be decoded: it is in no known format (AVIF, BMP)",
        "its name is not UTF-8",
        "not a text in UTF-16 (byte 3)",
        "the file cannot be read: Permission denied",
    ]
    assert len({kind_of_reason(reason) for reason in reasons}) == len(reasons)


def test_counts_name_the_first_offender_and_the_most_frequent_come_first():
    rows = [Rejected("a", "has 1 pixel"), Rejected("b", "is empty"), Rejected("c", "has 2 pixel")]
    counts = count_reasons(iter(rows))
    assert [(found.kind, found.count, found.first.id) for found in counts] == [
        ("has N pixel", 2, "a"),
        ("is empty", 1, "b"),
    ]
    assert summarise(rows, "images") == [
        "3 images left out:",
        "  2 x has 1 pixel (first: a)",
        "  1 x is empty (first: b)",
    ]
    many = [Rejected(str(number), "reason " + "x" * number) for number in range(9)]
    assert summarise(many)[-1] == "  4 x other reasons" and len(summarise(many)) == 7
    assert summarise([]) == []


WEB = pa.schema([("image_id", pa.string()), ("reason", pa.string())])
JOB = pa.schema([("row", pa.int64()), ("id", pa.string()), ("image_id", pa.string()), ("reason", pa.string())])


def write(path, schema, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def test_both_layouts_are_found_and_read(tmp_path):
    web, job = tmp_path / "pairs" / "rejected.parquet", tmp_path / "photos/.cir/vectors/fused/rejected.parquet"
    write(web, WEB, [{"image_id": "x/1", "reason": "empty"}])
    write(job, JOB, [{"row": 3, "id": "x/2/short", "image_id": "x/2", "reason": None}])
    assert find_rejections(tmp_path) == [web, job] and find_rejections(job) == [job]
    assert list(read_rejections(web)) == [Rejected("x/1", "empty")]
    assert list(read_rejections(job)) == [Rejected("x/2/short", "")]


def test_what_is_no_list_of_rejections_says_so(tmp_path):
    path = tmp_path / "rejected.parquet"
    path.write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match=r"rejected.parquet: not readable as Parquet"):
        list(read_rejections(path))
    write(path, pa.schema([("caption", pa.string())]), [])
    with pytest.raises(ArtifactError, match="no column 'image_id'"):
        list(read_rejections(path))
    with pytest.raises(ArtifactError, match="no such file or folder"):
        find_rejections(tmp_path / "nowhere")

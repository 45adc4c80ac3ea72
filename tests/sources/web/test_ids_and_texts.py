"""Own pairs: paths that differ in any part are different images, and a caption is the text that a person sees."""

import csv
import json
import shutil

import pytest

from pipeline.artifacts import ShardSet
from tests.sources.web.test_web_pairs import built, captions, make_image, raw, tar

__all__ = ["raw"]  # the fixture


@pytest.fixture
def prepared(raw):
    """Run `prepare` over one source: caption by image, bytes by image, reason by rejected image."""

    def run(source: str):
        folder, rows, rejected = built(raw, source, share=0.99)
        images = ShardSet.open(folder / "pairs/images").table(["image_id", "bytes"]).to_pylist()
        found = captions(rows)
        return found, {row["image_id"]: row["bytes"] for row in images if row["image_id"] in found}, rejected

    return run


@pytest.mark.parametrize(
    "names",
    [
        ("train.00000.tar", "train.00001.tar"),
        ("a/00000.tar", "b/00000.tar"),
        ("part.1.2.tar", "part.1.3.tar"),
        ("00000.tar", "00000.part.tar"),
    ],
)
def test_archives_that_differ_in_any_part_of_their_path(prepared, raw, names):
    for number, name in enumerate(names):
        files = {"0000.jpg": make_image(number), "0000.txt": f"caption {number}".encode()}
        tar(raw / "webdataset" / name, list(files.items()))
    found, images, _ = prepared("webdataset")
    assert sorted(found.values()) == ["caption 0", "caption 1"]
    for image_id, caption in found.items():
        assert images[image_id] == make_image(int(caption[-1]))


@pytest.mark.parametrize("names", [("cat.jpg", "cat.png"), ("cat.1.jpg", "cat.2.jpg"), ("a/cat.jpg", "b/cat.jpg")])
def test_files_that_differ_in_any_part_of_their_path(prepared, raw, names):
    folder = raw / "folder"
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(make_image(number, "PNG" if name.endswith("png") else "JPEG"))
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *((name, f"this is {name}") for name in names)])
    found, images, rejected = prepared("folder")
    assert found == {f"folder/{name}": f"this is {name}" for name in names} and not rejected
    assert len(set(images.values())) == 2


def test_equal_keys_in_different_archives_are_different_images(prepared, raw):
    files = {"0.jpg": make_image(0), "0.txt": b"first", "1.jpg": make_image(1), "1.txt": b"other"}
    tar(raw / "webdataset/00000.tar", list((files).items()))
    tar(raw / "webdataset/00000.tgz", list((files).items()))
    tar(raw / "webdataset/00000/1.tar", list({"x.jpg": make_image(2), "x.txt": b"third"}.items()))
    found, _, rejected = prepared("webdataset")
    assert len(found) == 5 and not rejected


MARKED = {
    "utf-8": b"a red hat",
    "byte order mark": "\ufeffa red hat".encode(),
    "utf-16": "a red hat".encode("utf-16"),
    "line ends": b"a red\r\nhat\r\n",
    "nul": b"a red\x00 hat\x00",
    "spaces": "\u00a0a  red\that ".encode(),
}


@pytest.mark.parametrize("content", MARKED.values(), ids=MARKED.keys())
def test_a_caption_is_what_a_person_sees(prepared, raw, content):
    tar(raw / "webdataset/00000.tar", list({"0.jpg": make_image(0), "0.txt": content}.items()))
    found, _, _ = prepared("webdataset")
    assert list(found.values()) == ["a red hat"]


@pytest.mark.parametrize(
    ("value", "caption"),
    [("a hat", "a hat"), (["a hat", "a hat"], "a hat"), (None, ""), ([], ""), ("\ufeffa\r\nhat", "a hat")],
)
def test_the_caption_field_of_json(prepared, raw, value, caption):
    fields = json.dumps({"caption": value}).encode()
    tar(raw / "webdataset/00000.tar", list({"0.jpg": make_image(0), "0.json": fields}.items()))
    found, _, _ = prepared("webdataset")
    assert list(found.values()) == [caption]


@pytest.mark.parametrize("value", [3, {"en": "a hat"}, True])
def test_a_caption_that_is_no_text_is_rejected_with_its_reason(prepared, raw, value):
    good = {"1.jpg": make_image(1), "1.txt": b"fine"}
    bad = {"0.jpg": make_image(0), "0.json": json.dumps({"caption": value}).encode()}
    tar(raw / "webdataset/00000.tar", list((bad | good).items()))
    found, _, rejected = prepared("webdataset")
    assert list(found.values()) == ["fine"]
    assert "its caption is a" in rejected["webdataset/00000/0"] and "where a text is expected" in str(rejected)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_csv_as_any_spreadsheet_writes_it(prepared, raw, encoding, line_end):
    folder = raw / "folder"
    folder.mkdir(parents=True)
    (folder / "b.jpg").write_bytes(make_image(0))
    (folder / "captions.csv").write_bytes(line_end.join(["image,caption", "b.jpg,un café", ""]).encode(encoding))
    found, _, _ = prepared("folder")
    assert found == {"folder/b.jpg": "un café"}


def test_shards_and_folders_from_reports(prepared, raw, shared):
    """Users' own shards and folders: every caption is with its image, and what is left out has a reason."""
    inputs = shared / "inputs"
    shutil.copytree(inputs / "shards/dotted", raw / "webdataset")
    found, images, rejected = prepared("webdataset")
    assert len(found) == len(images) > 1 and not rejected and len(set(found.values())) == len(found)
    shutil.copytree(inputs / "folders/same_stem", raw / "folder")
    shutil.rmtree(raw.parent / "data")
    found, _, rejected = prepared("folder")
    assert {"folder/cat.jpg", "folder/cat.png", "folder/dog.jpg"} == set(found) and not rejected

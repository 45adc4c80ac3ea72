"""Nothing is left out without a word: images are told by content, captions found in any order, skips have reasons."""

import csv
import io
import json
import os
import shutil
import tarfile

import pytest
from PIL import Image

from pipeline.artifacts import ShardSet
from pipeline.artifacts.rejections import read_rejections, summarise
from pipeline.sources.errors import SourceError
from pipeline.sources.files import files_below
from pipeline.sources.web.archives import webdataset
from tests.sources.web.test_web_pairs import built, captions, edits, make_image, raw, tar

__all__ = ["raw"]  # the fixture


def pair(stem, number, ending="jpg", kind="JPEG"):
    return [(f"{stem}.{ending}", make_image(number, kind)), (f"{stem}.txt", f"caption {number}".encode())]


def by_caption(folder, rows):
    """Caption -> the bytes of its image."""
    images = {row["image_id"]: row["bytes"] for row in ShardSet.open(folder / "pairs/images").table().to_pylist()}
    return {row["caption"]: images[row["image_id"]] for row in rows}


ORDERS = {
    "sorted": lambda files: files,
    "reversed": lambda files: files[::-1],
    "texts first": lambda files: sorted(files, key=lambda file: not file[0].endswith("txt")),
    "images first": lambda files: sorted(files, key=lambda file: file[0].endswith("txt")),
    "shuffled": lambda files: files[::3] + files[1::3] + files[2::3],
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
@pytest.mark.parametrize("ending", ["tar", "tgz", "tar.gz", "TAR"])
def test_members_in_any_order_keep_their_captions(raw, order, ending):
    files = [file for number in range(5) for file in pair(f"{number:05d}", number)]
    tar(raw / f"webdataset/00000.{ending}", order(files), compress="gz" in ending)
    folder, rows, rejected = built(raw, "webdataset")
    assert by_caption(folder, rows) == {f"caption {n}": make_image(n) for n in range(5)} and not rejected


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        ("JPEG", "JPEG"),
        ("jfif", "JPEG"),
        ("avif", "AVIF"),
        ("heic", "JPEG"),
        ("png", "WEBP"),
        ("img", "PNG"),
        ("Jpg", "JPEG"),
        ("tif", "TIFF"),
    ],
)
def test_a_member_is_an_image_by_its_content(raw, ending, kind):
    tar(raw / "webdataset/00000.tar", [*pair("0", 0), *pair("1", 1, ending, kind)][::-1])
    folder, rows, rejected = built(raw, "webdataset")
    image = by_caption(folder, rows)["caption 1"] if ending != "img" else None
    assert ending == "img" or Image.open(io.BytesIO(image)).format == kind
    assert len(rows) == 2 and not (ending != "img" and rejected)


@pytest.mark.parametrize(
    ("image", "text", "image_id"),
    [
        ("photo", "photo.txt", "photo"),
        ("photo.1.jpg", "photo.1.txt", "photo.1"),
        ("photo.v2", "photo.v2.txt", "photo.v2"),
        ("a.b/photo.1.2.png", "a.b/photo.1.2.txt", "a.b/photo.1.2"),
        ("0001.input.jpg", "0001.txt", "0001.input"),
        ("0001.jpg", "0001.caption", "0001"),
        ("caf\u00e9.x.JPG", "caf\u00e9.x.TXT", "caf\u00e9.x"),
    ],
)
def test_a_caption_belongs_to_the_image_of_its_name(raw, image, text, image_id):
    other = pair("other.1", 7)
    tar(raw / "webdataset/00000.tar", [(text, b"its caption"), *other, (image, make_image(3))])
    _, rows, rejected = built(raw, "webdataset")
    found = captions(rows)
    assert found == {f"webdataset/00000/{image_id}": "its caption", "webdataset/00000/other.1": "caption 7"}
    assert not rejected


def test_two_images_of_one_key_do_not_share_its_caption(raw):
    files = [("1.a.jpg", make_image(0)), ("1.b.jpg", make_image(1)), ("1.txt", b"of which?")]
    tar(raw / "webdataset/0.tar", files)
    _, rows, rejected = built(raw, "webdataset")
    assert captions(rows) == {"webdataset/0/1.a": "", "webdataset/0/1.b": ""}
    assert rejected == {"webdataset/0/1": "a caption without an image"}
    tar(raw / "webdataset/0.tar", [("1.jpg", make_image(0)), ("1.png", make_image(1, "PNG")), ("1.txt", b"one")])
    _, rows, rejected = built(raw, "webdataset", share=0.9)
    assert captions(rows) == {"webdataset/0/1": "one"} and "second image" in rejected["webdataset/0/1"]


def test_what_is_passed_over_has_a_reason_and_is_no_rejected_image(raw):
    files = pair("0", 0) + [
        ("0.cls", b"3"),
        ("1.cls", b"4"),
        ("film.mp4", b"\0\0\0\x20ftypisom"),
        ("._0.jpg", b"\0\x05\x16\x07"),
        (".DS_Store", b"x"),
        ("alone.txt", b"no image"),
    ]
    tar(raw / "webdataset/00000.tar", files)
    with tarfile.open(raw / "webdataset/00000.tar", "a") as archive:
        link = tarfile.TarInfo("linked.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    folder, rows, rejected = built(raw, "webdataset")
    assert list(captions(rows).values()) == ["caption 0"]
    place = "webdataset/00000"
    assert rejected == {
        f"{place}/0.cls": "neither an image nor a caption: *.cls (and 1 more)",
        f"{place}/film.mp4": "neither an image nor a caption: a video",
        f"{place}/._0.jpg": "a macOS resource file, not the image of that name",
        f"{place}/.DS_Store": "a hidden file",
        f"{place}/alone": "a caption without an image",
        f"{place}/linked.jpg": "a link or a device, not a file",
    }
    lines = summarise(read_rejections(folder / "pairs/rejected.parquet"), "images and other files")
    assert lines[0] == "7 images and other files left out:", "the inverse that is not told among them"
    assert len(lines) == 7 and lines[-1] == "  2 x other reasons"


def test_what_is_called_an_image_and_is_none_is_a_rejected_image(raw):
    files = pair("0", 0) + [("1.jpg", b"<html>404"), ("1.txt", b"gone"), ("2.jxl", b"\xff\x0a rest")]
    tar(raw / "webdataset/00000.tar", files)
    _, rows, rejected = built(raw, "webdataset", share=0.7)
    assert len(rows) == 1 and "HTML" in rejected["webdataset/00000/1"] and "JPEG XL" in rejected["webdataset/00000/2"]
    with pytest.raises(SourceError, match="2 of 7 images are rejected"):  # four of them belong to the edits
        built(raw, "webdataset", share=0.1)


def test_a_header_damaged_in_the_midst_is_not_the_end(raw):
    path = raw / "webdataset/00000.tar"
    tar(path, [file for number in range(4) for file in pair(str(number), number)])
    content = bytearray(path.read_bytes())
    place = content.index(b"2.jpg")
    content[place : place + 5] = b"\xff" * 5
    path.write_bytes(content)
    _, rows, rejected = built(raw, "webdataset", share=0.9)
    assert len(rows) == 2 and "00000.tar is damaged: bad checksum" in rejected["webdataset/00000/"]


def test_an_image_that_the_archive_breaks_off_in(raw):
    path = raw / "webdataset/00000.tar"
    tar(path, [*pair("0", 0), ("1.txt", b"big"), ("1.png", make_image(1, "PNG", (200, 200)))])
    path.write_bytes(path.read_bytes()[:20_000])
    _, rows, rejected = built(raw, "webdataset", share=0.9)
    assert captions(rows) == {"webdataset/00000/0": "caption 0"}
    assert set(rejected) == {"webdataset/00000/1", "webdataset/00000/"}


def test_linked_folders_of_archives_are_read_once(raw, tmp_path):
    tar(tmp_path / "disk2/00001.tar", pair("1", 1))
    tar(raw / "webdataset/00000.tar", pair("0", 0))
    (raw / "webdataset/more").symlink_to(tmp_path / "disk2")
    (raw / "webdataset/again").symlink_to(tmp_path / "disk2")
    (raw / "webdataset/loop").symlink_to(raw / "webdataset")
    _, rows, _ = built(raw, "webdataset")
    assert sorted(captions(rows).values()) == ["caption 0", "caption 1"]


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    def denied(place, onerror, **more):
        onerror(PermissionError(13, "Permission denied", str(place)))
        yield from ()

    monkeypatch.setattr(os, "walk", denied)
    with pytest.raises(SourceError, match="cannot be read .Permission denied"):
        files_below(tmp_path)


def write_csv(folder, rows):
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])


def test_several_captions_are_several_pairs(raw):
    folder = raw / "folder"
    folder.mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(make_image(ord(name[0])))
    write_csv(folder, [("a.jpg", "one"), ("b.jpg", "other"), ("a.jpg", "two"), ("./a.jpg", "three"), ("a.jpg", "one")])
    _, rows, rejected = built(raw, "folder")
    assert [(row["pair_id"], row["caption"]) for row in rows] == [
        ("folder/a.jpg/short", "one"),
        ("folder/a.jpg/short/1", "two"),
        ("folder/a.jpg/short/2", "three"),
        ("folder/b.jpg/short", "other"),
    ]
    assert not rejected
    listed = json.dumps({"caption": ["x", "y"]}).encode()
    tar(raw / "webdataset/0.tar", [("0.jpg", make_image(0)), ("0.json", listed)])
    _, rows, _ = built(raw, "webdataset")
    assert [row["pair_id"].rpartition("0/short")[2] for row in rows] == ["", "/1"]


def test_images_that_no_csv_names_and_rows_that_say_too_much(raw):
    folder = raw / "folder"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "deep/b", "c.jpg")):
        (folder / name).write_bytes(make_image(number))
    (folder / "notes.md").write_text("about")
    (folder / "captions.csv").write_text("image,caption\na.jpg,a dog\nc.jpg,a dog, running\n")
    _, rows, rejected = built(raw, "folder", share=0.5)
    assert captions(rows) == {"folder/a.jpg": "a dog", "folder/c.jpg": ""}
    assert rejected["folder/deep/b"] == "an image that no CSV names"
    assert rejected["folder/notes.md"].startswith("not an image")
    assert "row 2 of captions.csv has more fields than columns" in rejected["folder/c.jpg"]


def test_images_of_a_folder_are_told_by_content(raw, tmp_path):
    folder = raw / "folder"
    folder.mkdir(parents=True)
    contents = {"jpeg_called.heic": make_image(0), "photo": make_image(1, "PNG"), "new.avif": make_image(2, "AVIF")}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    write_csv(folder, [(name, name) for name in contents])
    (folder / "._captions.csv").write_bytes(b"\0\x05\x16\x07")
    out, rows, rejected = built(raw, "folder")
    assert by_caption(out, rows) == contents and not rejected


def test_unsorted_shards_and_five_captions_from_reports(raw, shared):
    inputs = shared / "inputs"
    shutil.copytree(inputs / "shards/unsorted", raw / "webdataset")
    with tarfile.open(raw / "webdataset/00000.tar") as archive:
        contents = {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}
    out, rows, rejected = built(raw, "webdataset")
    images = [name for name in contents if name.endswith("jpg")]
    assert len(rows) == len(images) > 1 and not rejected
    for caption, image in by_caption(out, rows).items():
        stem = next(name for name, content in contents.items() if content == image)[:-4]
        assert contents[f"{stem}.txt"].decode().strip() == caption
    shutil.copytree(inputs / "folders/five_captions", raw / "folder")
    _, rows, rejected = built(raw, "folder")
    with (raw / "folder/captions.csv").open(newline="") as file:
        named = [(row["image"], row["caption"]) for row in csv.DictReader(file)]
    found = [(row["image_id"].removeprefix("folder/"), row["caption"]) for row in rows]
    assert sorted(found) == sorted(named) and len({row["pair_id"] for row in rows}) == len(named) and not rejected


def test_images_from_reports_are_read_from_a_folder(raw, shared):
    shutil.copytree(shared / "inputs/images", raw / "folder")
    names = sorted(path.name for path in (raw / "folder").iterdir())
    write_csv(raw / "folder", [(name, f"this is {name}") for name in names])
    _, rows, rejected = built(raw, "folder", share=0.1)
    assert {row["image_id"] for row in rows} == {f"folder/{name}" for name in names} - set(rejected)
    assert list(rejected) == ["folder/IMG_0001.HEIC"] and "No meta box" in str(rejected), "its header alone is there"


def test_a_name_that_is_not_utf8_is_one_rejected_image(tmp_path):
    info = tarfile.TarInfo("caf\udce9.jpg")
    content = make_image(0)
    info.size = len(content)
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        archive.addfile(info, io.BytesIO(content))
    [sample] = webdataset(tmp_path, "wds")
    assert "not UTF-8" in sample.reason and sample.image_id.isascii()


def test_edits_of_which_none_can_be_used_are_an_error(raw):
    tar(raw / "webdataset/0.tar", pair("0", 0))
    edits(raw / "hqedit", [(make_image(1), b"", "broken", "broken")])
    with pytest.raises(SourceError, match="data.web.edits: there is no usable edit in hqedit"):
        built(raw, "webdataset", share=0.9)
    assert not (raw.parent / "data/triplets").exists()

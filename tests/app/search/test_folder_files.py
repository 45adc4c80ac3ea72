"""`find_files`: every file of a folder is an image or has a reason, whatever it is called and however it is linked."""

import os
import socket
from pathlib import Path

import pytest
from PIL import Image

from pipeline.app.search.folder_files import describe_file, find_files
from pipeline.artifacts.image_formats import FORMATS
from tests.artifacts.encoded_images import encode, pillow_heif

WRITTEN = [kind for kind in FORMATS if kind != "HEIC" or pillow_heif]
NAMES = [
    "{kind}.jpg",
    "{kind}",
    "{kind}.HEIC",
    "{kind}.tar.gz",
    "{kind}.txt",
    "{kind}.jfif",
    "{kind}.JPEG",
    "ä {kind}.x",
]


def listed(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The images' ids, and id -> reason of the rest."""
    rows = [describe_file(folder, file) for file in find_files(folder, folder / ".cir")]
    images = [row["image_id"] for row in rows if not row["reason"]]
    return images, {row["image_id"]: row["reason"] for row in rows if row["reason"]}


def picture(path: Path, kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(Image.new("RGB", (8, 8), "red"), kind))
    return path


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_format_is_told_by_content_whatever_the_name(tmp_path, kind):
    expected = [picture(tmp_path / name.format(kind=kind), kind).name for name in NAMES]
    assert listed(tmp_path) == (sorted(expected), {})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file has no bytes"),
        (b"words", "it is in no known format"),
        (b"%PDF-1.7", "it is a PDF document"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "it is a video"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
    ],
)
def test_what_is_no_image_has_a_reason_whatever_the_name(tmp_path, content, reason):
    for name in ("a.jpg", "b", "c.txt"):
        (tmp_path / name).write_bytes(content)
    images, left_out = listed(tmp_path)
    assert not images and list(left_out) == ["a.jpg", "b", "c.txt"]
    assert all(found.endswith(reason) or reason in found for found in left_out.values())


def test_hidden_files_and_folders_are_counted_and_the_library_is_not(tmp_path):
    picture(tmp_path / "deep/a.png")
    for name in (".b.png", "._a.png", "deep/._a.png", ".trash/c.png", "deep/.cir/d.png"):
        picture(tmp_path / name)
    (tmp_path / ".loop").symlink_to(tmp_path)
    for _ in range(2):  # the second time the folder has a library
        images, left_out = listed(tmp_path)
        assert images == ["deep/a.png"]
        assert sorted(left_out) == ["._a.png", ".b.png", ".loop", ".trash", "deep/._a.png", "deep/.cir"]
        assert "macOS" in left_out["._a.png"] and "hidden" in left_out[".trash"]


def test_a_linked_folder_is_read_once_and_under_its_own_name_if_it_has_one(tmp_path):
    picture(tmp_path / "z/a.png")
    picture(tmp_path / ".store/b.png")
    for name, target in {"a": "z", "b": ".store", "c": ".store", "d": ".", "z/up": "..", "z/self": "../z/self"}.items():
        (tmp_path / name).symlink_to(target)
    (tmp_path / "file.png").symlink_to("z/a.png")
    images, left_out = listed(tmp_path)
    assert images == ["b/b.png", "file.png", "z/a.png"]
    assert sorted(left_out) == [".store", "a", "c", "d", "z/self", "z/up"]
    assert all("under another name" in left_out[name] for name in ("a", "c", "d", "z/up"))
    assert left_out["z/self"] == "a link that leads nowhere"


def test_what_leads_out_of_the_folder_is_not_read(tmp_path):
    outside = picture(tmp_path / "outside/a.png")
    inside = tmp_path / "inside"
    picture(inside / "b.png")
    (inside / "folder").symlink_to(outside.parent)
    (inside / "file.png").symlink_to(outside)
    (inside / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "link to inside").symlink_to(inside)
    for folder in (inside, tmp_path / "link to inside"):
        images, left_out = listed(folder)
        assert images == ["b.png"]
        assert [left_out[name] for name in ("file.png", "folder")] == ["a link that leads out of the folder"] * 2
        assert left_out["gone.png"] == "a link that leads nowhere"


def test_what_is_no_file_is_not_opened(tmp_path, monkeypatch):
    """Opening a FIFO would wait for ever."""
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.chdir(tmp_path)  # a socket's address is short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.png")
        images, left_out = listed(tmp_path)
    assert not images and set(left_out.values()) == {"neither a file nor a folder"} and len(left_out) == 2


def test_names_that_are_not_utf8_stay_apart(tmp_path):
    for name in (b"\xff.png", b"\xfe.png"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    images, left_out = listed(tmp_path)
    assert not images and len(left_out) == 2 and set(left_out.values()) == {"its name is not UTF-8"}


def test_folders_and_files_that_may_not_be_read_are_listed(tmp_path, monkeypatch):
    picture(tmp_path / "a.png")
    locked, closed = picture(tmp_path / "locked/b.png"), picture(tmp_path / "closed.png")
    scan, read = os.scandir, open

    def scandir(path):
        if Path(path) == locked.parent:
            raise PermissionError(13, "Permission denied")
        return scan(path)

    def opened(path, *arguments):
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return read(path, *arguments)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr("pipeline.app.search.folder_files.open", opened, raising=False)
    images, left_out = listed(tmp_path)
    assert images == ["a.png"]
    assert left_out["locked"] == "the folder cannot be read: Permission denied"
    assert left_out["closed.png"] == "the file cannot be read: Permission denied"


def test_names_come_sorted_whatever_the_file_system_says(tmp_path, monkeypatch):
    for name in ("b.png", "a/c.png", "a.png", "A.png", "a/b/c.png"):
        picture(tmp_path / name)
    expected = find_files(tmp_path, tmp_path / ".cir")
    names = [file.path.relative_to(tmp_path).as_posix() for file in expected]
    assert names == sorted(names) and len(names) == 5
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: list(scan(path))[::-1])
    assert find_files(tmp_path, tmp_path / ".cir") == expected


def test_a_file_that_vanishes_during_the_walk_is_not_there(tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"x")
    listed = os.scandir

    def scandir(where):
        entries = list(listed(where))
        (tmp_path / "a.png").unlink()
        return entries

    monkeypatch.setattr("pipeline.app.search.folder_files.os.scandir", scandir)
    assert [file.path.name for file in find_files(tmp_path, tmp_path / ".cir")] == ["b.png"]

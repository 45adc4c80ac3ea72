"""Further artists' packages, read from small ones made here."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts.decoding import decode
from pipeline.sources.emoji import artists
from pipeline.sources.emoji.artists import ARTISTS, read_artist, slug, swap_tones
from pipeline.sources.emoji.cldr import Emoji
from pipeline.sources.errors import SourceError

RED = '<path fill="#f00" d="M0 0h32v32H0z"/>'
ICONS = {
    "icons": {"red-heart": {"body": RED}, "one": {"body": RED, "width": 16, "height": 16}},
    "aliases": {"love": {"parent": "red-heart"}, "turned": {"parent": "red-heart", "rotate": 1}},
    "width": 32,
    "height": 32,
}


def emoji(code: str, label: str) -> Emoji:
    return Emoji(code, label, (), "", "", label)


def package(monkeypatch, folder, name: str, files: dict[str, bytes]) -> None:
    """A tarball of npm's shape in the place of the artist's own package."""
    tarball = folder / "package.tgz"
    with tarfile.open(tarball, "w:gz") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(f"package/{path}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(artists, "fetch", lambda package, where: tarball)


def icon_set(icons: dict, chars: dict) -> dict[str, bytes]:
    return {"icons.json": json.dumps(icons).encode(), "chars.json": json.dumps(chars).encode()}


def test_icons_are_found_by_code_point_by_label_and_as_an_alias(monkeypatch, tmp_path):
    package(monkeypatch, tmp_path, "emojione", icon_set(ICONS, {"31-fe0f": "one"}))
    wanted = [emoji("2764", "red heart"), emoji("31", "keycap: 1"), emoji("1f970", "love"), emoji("0", "turned")]
    found = read_artist("emojione", tmp_path, [*wanted, emoji("1f9e1", "orange heart")], 8)
    assert sorted(found) == ["1f970", "2764", "31"]  # a turned alias is another drawing, and one is missing
    assert (np.asarray(decode(found["31"])) == (255, 0, 0)).all()


def test_the_tones_that_a_package_exchanged_are_put_right(monkeypatch, tmp_path):
    def webp(colour: str) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(buffer, "WEBP", lossless=True)
        return buffer.getvalue()

    files = {"assets/1f44b-1f3fc.webp": webp("brown"), "assets/1f44b-1f3fd.webp": webp("tan")}
    package(monkeypatch, tmp_path, "fluent_3d", files)
    found = read_artist("fluent_3d", tmp_path, [emoji("1f44b-1f3fc", "waving hand")], 8)
    assert np.asarray(decode(found["1f44b-1f3fc"]))[0, 0].tolist() == [210, 180, 140]
    assert swap_tones("1f9d1-1f3fc-200d-1f91d-200d-1f9d1-1f3fd") == "1f9d1-1f3fd-200d-1f91d-200d-1f9d1-1f3fc"


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("man firefighter: dark skin tone", "man-firefighter-dark-skin-tone"),
        ("woman’s boot", "womans-boot"),
        ("A button (blood type)", "a-button-blood-type"),
    ],
)
def test_labels_become_the_names_of_icon_sets(label, name):
    assert slug(label) == name


@pytest.mark.parametrize("files", [icon_set([], {}), icon_set(ICONS, []), {"icons.json": b"{}"}, {"icons.json": b"{"}])
def test_a_damaged_icon_set_is_named(monkeypatch, tmp_path, files):
    package(monkeypatch, tmp_path, "emojione", files)
    with pytest.raises(SourceError, match="package.tgz"):
        read_artist("emojione", tmp_path, [emoji("2764", "red heart")], 8)


def test_every_team_of_the_parameters_is_known():
    from typing import get_args

    from pipeline.config.backbones import Team

    assert set(get_args(Team)) == {"noto", "openmoji", *ARTISTS}

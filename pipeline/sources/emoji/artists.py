"""Further artists' images of the same characters, which only the frozen stage `backbones` learns from.

What a small model has seen in many styles it knows better in one that it has never seen. The pipeline's own pairs stay
those of two teams, so that a run downloads and embeds no more than it needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.sources.emoji.artwork import normal_code, to_png
from pipeline.sources.emoji.cldr import Emoji
from pipeline.sources.emoji.fetch import Package, fetch, read_members
from pipeline.sources.errors import SourceError

Files = dict[str, bytes]
"""Encoded images by normal code."""


@dataclass(frozen=True)
class Artist:
    """One set of images, and how its package is read."""

    name: str
    package: Package
    read: Callable[[Path, Iterable[Emoji]], Files]
    """From the package's tarball and the characters that are wanted."""


def _fluent_3d(tarball: Path, emoji: Iterable[Emoji]) -> Files:
    """One file a character, named by its code points; the medium-light and the medium skin tone have changed places."""
    members = read_members(tarball, "assets/", ".webp")
    return {swap_tones(normal_code(name)): content for name, content in members.items()}


def swap_tones(code: str) -> str:
    """`1f468-1f3fc` <-> `1f468-1f3fd`: the code with the medium-light and the medium skin tone exchanged."""
    other = {"1f3fc": "1f3fd", "1f3fd": "1f3fc"}
    return "-".join(other.get(part, part) for part in code.split("-"))


def _icon_set(tarball: Path, emoji: Iterable[Emoji]) -> Files:
    """A package of Iconify: drawings by name in one JSON file, and the names of the code points where it knows them."""
    try:
        members = read_members(tarball, "", ".json")
        icons = json.loads(members["icons"])
        named = {normal_code(code): name for code, name in json.loads(members["chars"]).items()}
        drawings = {one.code: _drawing(icons, named.get(one.code) or slug(one.label)) for one in emoji}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{tarball}: not an icon set in the expected shape ({error!r})") from None
    return {code: svg.encode() for code, svg in drawings.items() if svg}


def _drawing(icons: Mapping[str, Any], name: str) -> str | None:
    """An icon as SVG; None: there is none, or only as another one turned round."""
    alias = icons.get("aliases", {}).get(name)
    if alias is not None and set(alias) <= {"parent", "hidden"}:
        name = alias["parent"]
    icon = icons["icons"].get(name)
    if icon is None:
        return None
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    )


def slug(label: str) -> str:
    """`man firefighter: dark skin tone` -> `man-firefighter-dark-skin-tone`, as icon sets name emoji."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower().replace("’", "").replace("'", "")).strip("-")


FLUENT_3D = Artist(
    "fluent_3d",
    Package(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
    ),
    _fluent_3d,
)
FLUENT_FLAT = Artist(
    "fluent_flat",
    Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    ),
    _icon_set,
)
EMOJIONE = Artist(
    "emojione",
    Package(
        "@iconify-json/emojione",
        "1.2.3",
        "sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
    ),
    _icon_set,
)
NOTO_BLOBS = Artist(
    "noto_blobs",
    Package(
        "@iconify-json/noto-v1",
        "1.2.5",
        "sha512-/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
    ),
    _icon_set,
)
ARTISTS = {artist.name: artist for artist in (FLUENT_3D, FLUENT_FLAT, EMOJIONE, NOTO_BLOBS)}


def read_artist(name: str, folder: str | Path, emoji: Iterable[Emoji], size: int) -> Files:
    """An artist's images of the characters that they drew.

    Args:
        name: A key of `ARTISTS`.
        folder: Where packages are kept; a missing one is fetched.
        emoji: The characters.
        size: Side of the images, in pixels.

    Returns:
        RGB PNGs on white, by code.

    Raises:
        SourceError: The package cannot be fetched or read, or an image not be decoded.
    """
    artist, wanted = ARTISTS[name], list(emoji)
    files = artist.read(fetch(artist.package, folder), wanted)
    return {one.code: to_png(files[one.code], size, f"{name}/{one.code}") for one in wanted if one.code in files}

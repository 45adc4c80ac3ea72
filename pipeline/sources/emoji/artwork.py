"""Emoji images of the three teams as small RGB PNGs on white."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import resvg_py
from PIL import Image

from pipeline.artifacts.decoding import decode_with_alpha
from pipeline.sources.emoji.fetch import NOTO, OPENMOJI, TWEMOJI, Package, read_members
from pipeline.sources.errors import SourceError


@dataclass(frozen=True)
class Team:
    """One team of artists and where its images lie in its package."""

    name: str
    package: Package
    prefix: str
    suffix: str


NOTO_TEAM = Team("noto", NOTO, "img/google/64/", ".png")
OPENMOJI_TEAM = Team("openmoji", OPENMOJI, "color/svg/", ".svg")
TWEMOJI_TEAM = Team("twemoji", TWEMOJI, "img/twitter/64/", ".png")


def normal_code(hexcode: str) -> str:
    """`0023-FE0F-20E3` -> `23-20e3`: the form in which all packages agree."""
    parts = (part.lstrip("0") for part in hexcode.lower().split("-"))
    return "-".join(part for part in parts if part != "fe0f")


def read_team(team: Team, folder: str | Path) -> dict[str, bytes]:
    """The team's files, still encoded, by normal code."""
    members = read_members(Path(folder) / team.package.tarball, team.prefix, team.suffix)
    return {normal_code(name): content for name, content in members.items()}


def to_png(content: bytes, size: int, name: str) -> bytes:
    """Decode a PNG or SVG file to a `size` x `size` RGB PNG on white.

    Raises SourceError naming the image when it cannot be decoded.
    """
    try:
        if content.lstrip()[:1] == b"<":
            content = bytes(resvg_py.svg_to_bytes(svg_string=content.decode("utf-8"), width=size, height=size))
        image = decode_with_alpha(content)
    except ValueError as error:  # resvg's of a bad drawing as well
        raise SourceError(f"{name}: not a readable image ({str(error).splitlines()[0]})") from None
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (size, size), "white")
    canvas.alpha_composite(image)
    encoded = io.BytesIO()
    canvas.convert("RGB").save(encoded, "PNG", compress_level=6)
    return encoded.getvalue()

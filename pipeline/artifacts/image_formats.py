"""What a file of an image is, told by its first bytes and never by its name."""

from __future__ import annotations

import re

FORMATS = ("AVIF", "BMP", "GIF", "HEIC", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are decoded. None of them starts another program, as EPS would."""

HEAD = 4096
"""So many bytes tell a file's format."""

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\x05\x16\x07", "a macOS resource file, not the image of that name"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\0\0\x01\0", "an icon"),
    (b"8BPS", "a Photoshop document"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"\x1a\x45\xdf\xa3", "a video"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
)
_HEIC = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"])
_AVIF = frozenset([b"avif", b"avis"])
_SCAN, _END = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_WITHOUT_LENGTH = frozenset([0x01, *range(0xD0, 0xD9)])
"""TEM, the restart markers and the start of the image: nothing follows them."""


def sniff(content: bytes) -> str:
    """The format of an image by its first bytes.

    Args:
        content: The file, or its first `HEAD` bytes.

    Returns:
        One of `FORMATS`, or else in words what the file is; "" where that is unknown.
    """
    for magic, kind in _MAGIC:
        if content.startswith(magic):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    if content[4:8] == b"ftyp":
        return _kind_of_boxes(content)
    if re.match(rb"P[1-6f][\s#]", content):
        return "PPM"
    return _kind_of_text(content[:HEAD])


def _kind_of_boxes(content: bytes) -> str:
    """HEIC, AVIF and videos share a container; its first box names what it holds."""
    size = max(16, min(int.from_bytes(content[:4], "big"), HEAD))
    major, *others = [content[8:12], *(content[at : at + 4] for at in range(16, size, 4))]
    brands = {major, *others}
    if major in _AVIF or (brands & _AVIF and major not in _HEIC):
        return "AVIF"
    if brands & _HEIC or major in (b"mif1", b"msf1"):
        return "HEIC"
    return "a raw photograph" if major == b"crx " else "a video"


def _kind_of_text(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if text.startswith(b"<svg") or (text.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text):
        return "an SVG drawing"
    return ""


def is_image(content: bytes) -> bool:
    """Whether these first bytes are those of a format that is decoded."""
    return sniff(content) in FORMATS


def count_scans(jpeg: bytes) -> int:
    """How often a JPEG goes over its pixels, up to the marker that ends the image.

    Phones append a video or further images behind that marker, and an EXIF block holds a thumbnail with scans
    of its own. No decoder reads either, so neither counts.
    """
    scans, place = 0, 2
    while found := _MARKER.search(jpeg, place):
        marker, place = jpeg[found.end() - 1], found.end()
        if marker == _END:
            break
        scans += marker == _SCAN
        if marker not in _WITHOUT_LENGTH:
            place += int.from_bytes(jpeg[place : place + 2], "big")
    return scans

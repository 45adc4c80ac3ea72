"""Samples of every width, transparency and colour profiles -> 8-bit RGB on white."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from pipeline.artifacts.decoding import decode, decode_with_alpha
from tests.artifacts.encoded_images import LOSSY, SIZES, difference, encode, grey_scene, needs_heif, scene


def modes_of(pixels: np.ndarray) -> dict[str, tuple[str, Image.Image]]:
    """Grey images in every kind of sample -> (format, image)."""
    wide = pixels.astype(np.uint32)
    modes = {
        "L": Image.fromarray(pixels),
        "P": Image.fromarray(pixels).convert("P"),
        "I;16": Image.fromarray((wide * 257).astype(np.uint16)),
        "I, 8 bits used": Image.fromarray(wide.astype(np.int32)),
        "I, 16 bits used": Image.fromarray((wide * 257).astype(np.int32)),
        "F to 1": Image.fromarray((wide / 255).astype(np.float32)),
        "F to 255": Image.fromarray(wide.astype(np.float32)),
        "F to 65535": Image.fromarray((wide * 257).astype(np.float32)),
    }
    found = {f"TIFF {name}": ("TIFF", image) for name, image in modes.items()}
    found |= {f"PNG {name}": ("PNG", modes[name]) for name in ("L", "P", "I;16")}
    found |= {"PPM L": ("PPM", modes["L"]), "PPM I;16": ("PPM", modes["I;16"]), "BMP L": ("BMP", modes["L"])}
    return found | {"GIF L": ("GIF", modes["L"])}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", list(modes_of(grey_scene(4, 4))))
def test_samples_of_any_width_keep_their_brightness(name, size):
    pixels = grey_scene(*size)
    pixels[0, 0], pixels[-1, -1] = 0, 255
    kind, image = modes_of(pixels)[name]
    np.testing.assert_array_equal(np.asarray(decode(encode(image, kind)))[..., 2], pixels)


def test_unsigned_32_bits_are_no_negative_numbers():
    pixels = grey_scene(48, 32)
    pixels[0, 0] = 255
    tiff = TiffImagePlugin.ImageFileDirectory_v2()
    tiff[339] = 1
    image = Image.fromarray((pixels.astype(np.uint32) * 16_843_009).view(np.int32))
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", tiffinfo=tiff)
    content = bytearray(buffer.getvalue())
    assert struct.pack("<HHI", 339, 3, 1) in content  # sample format: unsigned, whatever Pillow would write
    place = content.index(struct.pack("<HHI", 339, 3, 1)) + 8
    content[place : place + 2] = struct.pack("<H", 1)
    np.testing.assert_array_equal(np.asarray(decode(bytes(content)))[..., 0], pixels)


def test_floats_that_are_no_numbers_or_out_of_range():
    values = np.array([[0.0, 0.5, 1.0, -3.0, np.nan, np.inf]], np.float32)
    assert np.asarray(decode(encode(Image.fromarray(values), "TIFF")))[0, :, 0].tolist() == [0, 128, 255, 0, 0, 255]


def test_where_zero_is_white():
    pixels = grey_scene(48, 32)
    content = bytearray(encode(Image.fromarray(((255 - pixels.astype(np.uint16)) * 257).astype(np.uint16)), "TIFF"))
    place = content.index(struct.pack("<HHI", 262, 3, 1)) + 8
    content[place : place + 2] = struct.pack("<H", 0)
    np.testing.assert_array_equal(np.asarray(decode(bytes(content)))[..., 0], pixels)


def test_one_bit():
    pixels = (grey_scene(48, 32) > 120).astype(np.uint8) * 255
    for kind in ("PNG", "TIFF", "BMP", "GIF", "PPM"):
        assert difference(encode(Image.fromarray(pixels).convert("1"), kind), pixels) == 0


def png(width: int, height: int, header: tuple[int, int], lines: list[bytes], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of (bit depth, colour type), which Pillow cannot write in every combination."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, *header, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines)))
    middle = b"".join(chunk(kind, content) for kind, content in chunks)
    return b"\x89PNG\r\n\x1a\n" + start + middle + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_white_at_every_depth(depth):
    """Two samples: the clear one, and black."""
    clear = 2**depth - 1 if depth < 8 else 5 * (257 if depth == 16 else 1)
    line = clear.to_bytes(2, "big") + b"\0\0" if depth == 16 else bytes([clear, 0])
    if depth < 8:
        line = bytes([clear << (8 - depth)])
    content = png(2, 1, (depth, 0), [line], (b"tRNS", struct.pack(">H", clear)))
    assert np.asarray(decode(content))[0].tolist() == [[255] * 3, [0] * 3]


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_is_white_at_every_depth(depth):
    factor, kind = (257, ">3H") if depth == 16 else (1, "3B")
    clear, other = [factor * value for value in (10, 20, 30)], [factor * value for value in (10, 20, 31)]
    line = struct.pack(kind, *clear) + struct.pack(kind, *other)
    content = png(2, 1, (depth, 2), [line], (b"tRNS", struct.pack(">3H", *clear)))
    assert np.asarray(decode(content))[0].tolist() == [[255] * 3, [10, 20, 31]]


TRANSPARENT = [
    ("PNG", "RGBA"),
    ("PNG", "LA"),
    ("PNG", "P"),
    ("TIFF", "RGBA"),
    ("TIFF", "LA"),
    ("WEBP", "RGBA"),
    ("AVIF", "RGBA"),
    ("GIF", "RGBA"),
    pytest.param("HEIC", "RGBA", marks=needs_heif),
]


@pytest.mark.parametrize(("kind", "mode"), TRANSPARENT)
def test_transparency_is_white(kind, mode):
    rgba = np.dstack([scene(48, 32), np.full((32, 48), 255, np.uint8)])
    rgba[8:24, 8:40, 3] = 0
    image = Image.fromarray(rgba)
    image = image.quantize(64) if mode == "P" else image.convert(mode)
    ground = Image.new("RGB", image.size, "white")
    layer = image.convert("RGBA")
    ground.paste(layer, mask=layer.getchannel("A"))
    lossless = {"lossless": True} if kind == "WEBP" else {}
    content = encode(image, kind, **lossless)
    allowed = {"WEBP": 0, "GIF": 8}.get(kind, LOSSY.get(kind, 0))  # WebP without loss, GIF with few colours
    assert difference(content, np.asarray(ground)) <= allowed
    assert np.asarray(decode(content))[16, 24].tolist() == [255] * 3
    alpha = np.asarray(decode_with_alpha(content).getchannel("A"))
    assert alpha[16, 24] == 0 and alpha[0, 0] == 255


def test_half_transparent_is_halfway_to_white():
    content = encode(Image.new("RGBA", (4, 4), (0, 100, 200, 128)), "PNG")
    assert np.asarray(decode(content))[0, 0].tolist() == [127, 177, 227]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    content = encode(Image.fromarray(scene(48, 32)).convert("CMYK"), kind)
    assert difference(content, scene(48, 32)) < 4


def test_lab():
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.fromarray(scene(48, 32)), to_lab)
    assert difference(encode(lab, "TIFF"), scene(48, 32)) < 3


def swapped_profile() -> bytes:
    """An ICC profile under which red stands for green and green for red: sRGB's with two tags exchanged."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    content = bytearray(bytes(content).replace(b"s\0R\0G\0B", b"r\0e\0d\0?").replace(b"sRGB", b"swap"))
    red, green = (128 + 4 + 12 * number for number in (tag_number(content, b"rXYZ"), tag_number(content, b"gXYZ")))
    content[red : red + 4], content[green : green + 4] = content[green : green + 4], content[red : red + 4]
    return bytes(content)


def tag_number(profile: bytes, tag: bytes) -> int:
    count = int.from_bytes(profile[128:132], "big")
    return next(number for number in range(count) if profile[132 + 12 * number : 136 + 12 * number] == tag)


PROFILED = [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("TIFF", "RGB"), ("TIFF", "RGBA"), ("TIFF", "P")]
PROFILED += [("WEBP", "RGB"), ("WEBP", "RGBA"), ("JPEG", "RGB"), ("AVIF", "RGB")]


@pytest.mark.parametrize(("kind", "mode"), [*PROFILED, pytest.param("HEIC", "RGB", marks=needs_heif)])
def test_a_colour_profile_is_applied_once(kind, mode):
    upright = scene(48, 32)
    image = Image.fromarray(np.ascontiguousarray(upright[..., [1, 0, 2]]))
    image = image.quantize(256) if mode == "P" else image.convert(mode)
    swapped = np.asarray(image.convert("RGB"))[..., [1, 0, 2]]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    content = encode(image, kind, icc_profile=swapped_profile(), **lossless)
    assert difference(content, swapped) < 5
    again = encode(decode(content), "PNG")
    assert difference(again, np.asarray(decode(content))) == 0
    assert difference(content, np.asarray(image.convert("RGB")), treatment="stored") < 4


@pytest.mark.parametrize("profile", [b"no profile", swapped_profile()[:200], b"\0" * 500])
def test_a_damaged_profile_or_one_of_another_kind_is_ignored(profile):
    assert difference(encode(Image.fromarray(scene(48, 32)), "PNG", icc_profile=profile), scene(48, 32)) == 0
    grey = encode(Image.fromarray(grey_scene(48, 32)), "PNG", icc_profile=swapped_profile())
    assert difference(grey, grey_scene(48, 32)) == 0


def test_an_srgb_profile_changes_nothing():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert difference(encode(Image.fromarray(scene(48, 32)), "PNG", icc_profile=profile), scene(48, 32)) == 0

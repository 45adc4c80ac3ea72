"""Rows and their images, as the web has them: each kind of damage or oddity has one outcome."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts import ArtifactError, ShardSet
from pipeline.encoders.embedding import rows as rows_module
from pipeline.encoders.embedding.readers import ImageReader
from pipeline.encoders.embedding.rows import MAX_PIXELS, EncoderRow, UnreadableRowError, decode


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def seen(content: bytes, **options) -> Image.Image:
    return decode(EncoderRow("one", "a text", content), **options).image


@pytest.fixture(scope="module")
def gradient() -> np.ndarray:
    """[48, 64, 3]"""
    rows, columns = np.mgrid[0:48, 0:64]
    return np.stack([rows * 5, columns * 3, (rows + columns) * 2], -1).astype(np.uint8)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_truncated_jpeg_is_refused_and_not_filled_up_with_grey(gradient, kept):
    whole = encoded(Image.fromarray(gradient).resize((640, 480)), "JPEG")
    with pytest.raises(UnreadableRowError, match="cannot be decoded"):
        seen(whole[: int(kept * len(whole))])


def test_no_bytes_are_refused():
    with pytest.raises(UnreadableRowError, match="no bytes"):
        seen(b"")


def test_cmyk_looks_as_it_should(gradient):
    content = encoded(Image.fromarray(gradient).convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(content)).mode == "CMYK"
    assert np.abs(np.asarray(seen(content)).astype(int) - gradient).mean() < 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_brightness(gradient, kind):
    grey = gradient[..., 0]
    content = encoded(Image.fromarray(grey.astype(np.uint16) * 257), kind)
    assert Image.open(io.BytesIO(content)).mode.startswith("I")
    np.testing.assert_array_equal(np.asarray(seen(content)), np.repeat(grey[..., None], 3, -1))


def test_sixteen_bits_of_colour_keep_their_brightness(gradient):
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in gradient.astype(np.uint16) * 257)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(np.asarray(seen(content)), gradient)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_seen(kind):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "green")]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **lossless)
    assert Image.open(io.BytesIO(content)).n_frames == 3
    assert seen(content).getcolors() == [(32 * 32, (255, 0, 0))]


def test_a_hundred_megapixels_are_never_decoded_whole(gradient):
    large = encoded(Image.fromarray(gradient).resize((10_000, 10_000)), "JPEG", quality=60)
    image = seen(large)
    assert image.width * image.height <= MAX_PIXELS and image.width == image.height >= 2_000
    small = Image.fromarray(gradient).resize(image.size)
    assert (
        np.abs(np.asarray(image.resize((64, 48))).astype(int) - np.asarray(small.resize((64, 48))).astype(int)).mean()
        < 3
    )
    assert seen(large, max_side=448).size == (448, 448)


def test_a_hundred_megapixels_that_cannot_be_reduced_are_refused_from_the_header():
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0))
    with pytest.raises(UnreadableRowError, match=f"10000 x 10000 pixels, at most {MAX_PIXELS} are decoded"):
        seen(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


def test_a_strip_is_refused(gradient):
    with pytest.raises(UnreadableRowError, match="1000 x 5 pixels: one side is 200 times"):
        seen(encoded(Image.new("RGB", (1000, 5)), "PNG"))


@pytest.mark.parametrize(("size", "expected"), [((900, 450), (448, 224)), ((300, 200), (300, 200))])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_larger_images_are_reduced_to_max_side(gradient, kind, size, expected):
    image = Image.fromarray(gradient).resize(size, Image.Resampling.BICUBIC)
    found = seen(encoded(image, kind), max_side=448)
    assert found.size == expected
    other = np.asarray(image.resize(expected, Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(np.asarray(found).astype(int) - other).mean() < 3


def test_a_flipped_byte_in_a_shard_is_an_error_naming_the_shard(make, tmp_path):
    images = make.images(tmp_path, ["a", "b", "c"], rows_per_shard=2)
    assert len(list(ImageReader(images).rows(0))) == 3
    shard = tmp_path / "part-00001.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"part-00001.parquet: content does not match"):
        ShardSet.open(tmp_path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_every_mode_becomes_rgb(make, mode):
    assert decode(EncoderRow("one", "", make.png(0, mode=mode))).image.mode == "RGB"


def test_an_image_too_large_is_refused_from_its_header(make, monkeypatch):
    monkeypatch.setattr(rows_module, "MAX_PIXELS", 100)
    with pytest.raises(UnreadableRowError, match="32 x 32 pixels, at most 100"):
        decode(EncoderRow("one", "", make.png(0)))


def test_a_row_of_nothing_is_refused():
    with pytest.raises(UnreadableRowError, match="neither"):
        decode(EncoderRow("one"))

"""Rows become inputs of f_M; how an image is decoded is tested in tests/artifacts."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts import ArtifactError, ShardSet
from pipeline.encoders.embedding.readers import ImageReader
from pipeline.encoders.embedding.rows import EncoderRow, UnreadableRowError, decode


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(image: Image.Image) -> bytes:
    """A PNG that a viewer turns by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, "PNG", exif=exif)


def test_an_image_and_a_text(make):
    seen = decode(EncoderRow("one", "a text", make.png(0)))
    assert seen.text == "a text"
    np.testing.assert_array_equal(np.asarray(seen.image), np.asarray(Image.open(io.BytesIO(make.png(0)))))
    assert decode(EncoderRow("one", "a text")).image is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the image has no bytes"),
        (b"words", "in no known format"),
        (encoded(Image.new("RGB", (1005, 5)), "PNG"), "1005 x 5 pixels: one side is more than 100 times the other"),
        (encoded(Image.new("RGB", (640, 480), "red"), "JPEG")[:3000], "cannot be decoded"),
    ],
)
def test_what_cannot_be_decoded_is_unreadable_with_the_reason(content, reason):
    with pytest.raises(UnreadableRowError, match=reason):
        decode(EncoderRow("one", "a text", content))


def test_a_row_of_nothing_is_rejected():
    with pytest.raises(UnreadableRowError, match="neither"):
        decode(EncoderRow("one"))


def test_larger_images_are_reduced_to_max_side():
    content = encoded(Image.new("RGB", (900, 450)), "JPEG")
    assert decode(EncoderRow("one", "", content), max_side=448).image.size == (448, 224)


def test_a_row_says_whether_its_image_is_turned():
    content = turned(Image.new("RGB", (40, 20)))
    shown, stored = EncoderRow("one", "", content), EncoderRow("one", "", content, treatment="stored")
    assert (decode(shown).image.size, decode(stored).image.size) == ((20, 40), (40, 20))
    assert shown.key != stored.key and shown.key == EncoderRow("two", "", content).key


def test_a_flipped_byte_in_a_shard_is_an_error_naming_the_shard(make, tmp_path):
    images = make.images(tmp_path, ["a", "b", "c"], rows_per_shard=2)
    assert len(list(ImageReader(images).rows(0))) == 3
    shard = tmp_path / "part-00001.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"part-00001.parquet: content does not match"):
        ShardSet.open(tmp_path)

"""Images of every kind, and files that are no images."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.app.search.user_images import UserImageError, read_user_image


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_large_image_is_reduced_and_keeps_its_shape():
    assert read_user_image(encoded(Image.new("RGB", (3000, 1500)), "JPEG"), side=512).size == (512, 256)


def test_a_small_image_keeps_every_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(read_user_image(encoded(Image.fromarray(pixels)))), pixels)


def test_transparency_becomes_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 255, 0))
    assert list(np.asarray(read_user_image(encoded(image))).reshape(2, 3).tolist()) == [[255, 0, 0], [255, 255, 255]]


def test_sixteen_bits_are_scaled():
    grey = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert np.asarray(read_user_image(encoded(grey)))[0, :, 0].tolist() == [0, 128, 255]


def test_the_orientation_of_a_phone_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    assert read_user_image(encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif)).size == (20, 40)


@pytest.mark.parametrize(("mode", "kind"), [("1", "PNG"), ("L", "PNG"), ("P", "PNG"), ("LA", "PNG"), ("CMYK", "TIFF")])
def test_every_mode_becomes_rgb(mode, kind):
    assert read_user_image(encoded(Image.new(mode, (8, 8)), kind)).mode == "RGB"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"these are words", "no image in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "no image in a known format"),
        (encoded(Image.new("RGB", (300, 2))), "more than 100 times longer than wide"),
        (encoded(Image.new("RGB", (200, 200), "red"), "JPEG")[:300], "damaged"),
    ],
)
def test_what_is_no_usable_image_says_why(content, reason):
    with pytest.raises(UserImageError, match=reason):
        read_user_image(content)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((10_000, 5_000), r"10000 x 5000 pixels \(50\.0 megapixels\), at most 40 megapixels"),
        ((60_000, 60_000), "at most 40 megapixels"),
        ((100, 100), "damaged"),
    ],
)
def test_a_header_that_promises_more_than_the_file_holds(make_bomb, size, reason):
    with pytest.raises(UserImageError, match=reason):
        read_user_image(make_bomb(*size))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserImageError, match="no such file"):
        read_user_image(tmp_path / "no.png")
    with pytest.raises(UserImageError, match="no such file"):
        read_user_image(tmp_path)

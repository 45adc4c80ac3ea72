"""One image in every format, orientation and size decodes to the same upright RGB pixels, within one set of limits."""

from __future__ import annotations

import contextlib
import io
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.artifacts.decoding import ImageError, Limits, decode, decode_with_alpha, measure, read_image_file
from tests.artifacts.encoded_images import LOSSY, SIZES, difference, encode, grey_scene, lying, needs_heif, scene

ORIENTED = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", pytest.param("HEIC", marks=needs_heif))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ORIENTED)
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
def test_every_orientation_becomes_upright(kind, orientation, size, grey):
    upright = grey_scene(*size) if grey else scene(*size)
    stored = Image.fromarray(np.ascontiguousarray(lying(upright, orientation)))
    if kind in ("WEBP", "AVIF"):
        stored = stored.convert("RGB")
    content = encode(stored, kind, orientation)
    assert difference(content, upright) <= LOSSY.get(kind, 0)
    assert measure(content) == size
    if kind not in ("TIFF", "HEIC"):  # whose decoders turn the image themselves
        assert difference(content, lying(upright, orientation), treatment="stored") <= LOSSY.get(kind, 0)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiffs_orientation_is_applied_once_however_it_is_compressed(compression, orientation):
    upright = scene(48, 32)
    content = encode(
        Image.fromarray(np.ascontiguousarray(lying(upright, orientation))), "TIFF", orientation, compression=compression
    )
    assert difference(content, upright) <= (6 if compression == "jpeg" else 0)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_is_seen(kind):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "green")]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    more = {} if kind == "TIFF" else {"duration": 50}
    content = encode(frames[0], kind, save_all=True, append_images=frames[1:], **more, **lossless)
    assert Image.open(io.BytesIO(content)).n_frames == 3
    assert difference(content, np.asarray(frames[0])) <= LOSSY.get(kind, 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_loses_no_image():
    content = encode(Image.fromarray(scene(48, 32)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert difference(content, scene(48, 32)) < 4
    turned = encode(Image.fromarray(scene(48, 32)), "PNG", 9)
    assert difference(turned, scene(48, 32)) == 0


def test_exif_behind_the_pixels_of_a_png():
    content = encode(Image.fromarray(np.ascontiguousarray(lying(scene(48, 32), 6))), "PNG", 6)
    start = content.index(b"eXIf") - 4
    length = 12 + int.from_bytes(content[start : start + 4], "big")
    end = content.index(b"IEND") - 4
    moved = content[:start] + content[start + length : end] + content[start : start + length] + content[end:]
    assert difference(moved, scene(48, 32)) == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize(("size", "expected"), [((900, 450), (448, 224)), ((200, 300), (200, 300))])
def test_larger_images_are_reduced_to_max_side(kind, orientation, size, expected):
    upright = scene(*size)
    content = encode(Image.fromarray(np.ascontiguousarray(lying(upright, orientation))), kind, orientation)
    small = np.asarray(Image.fromarray(upright).resize(expected, Image.Resampling.BICUBIC)).astype(int)
    assert difference(content, small, max_side=448) < 4


def test_what_the_pipeline_makes_itself_is_decoded_as_it_always_was():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encode(Image.fromarray(pixels), "PNG", compress_level=6)
    np.testing.assert_array_equal(np.asarray(decode(content)), pixels)
    np.testing.assert_array_equal(np.asarray(decode(content, treatment="stored")), pixels)
    np.testing.assert_array_equal(np.asarray(decode_with_alpha(content).convert("RGB")), pixels)


def test_a_large_jpeg_is_judged_as_it_is_decoded():
    limits = Limits(pixels=10_000)
    upright = Image.fromarray(scene(48, 32)).resize((300, 200))
    content = encode(upright, "JPEG")
    assert decode(content, limits=limits).size == (75, 50)
    assert measure(content, limits) == (300, 200)
    with pytest.raises(ImageError, match="300 x 200 pixels, at most 10000 are decoded"):
        decode(encode(upright, "PNG"), limits=limits)
    with pytest.raises(ImageError, match="300 x 200 pixels, at most 50000 are decoded"):
        decode(content, limits=Limits(pixels=10_000, jpeg_pixels=50_000))
    with pytest.raises(ImageError, match="at most 640 are decoded"):
        decode(content, limits=Limits(pixels=10))


@pytest.mark.parametrize(("width", "height"), [(8_000, 6_250), (12_000, 9_000), (16_320, 12_240)])
def test_what_phones_take_is_decoded(width, height):
    """50, 108 and 200 megapixels; the last is more than Pillow opens by itself."""
    image = Image.new("L", (width, height), 200)
    content = encode(image, "JPEG", 6)
    assert measure(content) == (height, width)
    found = decode(content, max_side=512)
    assert found.size == (384, 512) or max(found.size) == 512
    assert np.asarray(found).min() >= 198
    with pytest.raises(ImageError, match=r"at most \d+ are decoded"):
        decode(content, limits=Limits(jpeg_pixels=1_000_000))


def test_one_pixel_too_long_is_rejected():
    assert decode(encode(Image.new("RGB", (500, 5)), "PNG")).size == (500, 5)
    with pytest.raises(ImageError, match="501 x 5 pixels: one side is more than 100 times the other"):
        decode(encode(Image.new("RGB", (501, 5)), "PNG"))


def test_scans_count_up_to_the_end_of_the_image():
    progressive = encode(Image.fromarray(scene(480, 320)), "JPEG", progressive=True)
    decode(progressive + progressive * 40, limits=Limits(scans=20))
    with pytest.raises(ImageError, match="scans, at most 2 are decoded"):
        decode(progressive, limits=Limits(scans=2))


def test_several_images_in_one_jpeg_are_a_jpeg():
    first, second = Image.fromarray(scene(96, 64)), Image.new("RGB", (96, 64), "blue")
    content = encode(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert Image.open(io.BytesIO(content)).format == "MPO"
    assert difference(content, scene(96, 64)) < 4
    assert decode(content, limits=Limits(pixels=2_000)).size == (48, 32)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no bytes"),
        (b"these are words", r"no known format \(AVIF, BMP"),
        (b"<!DOCTYPE html><html>404</html>", "it is an HTML page"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "it is a PostScript document"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "it is a video"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "a macOS resource file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (encode(Image.fromarray(scene(480, 320)), "JPEG")[:800], "cannot be decoded"),
        (encode(Image.fromarray(scene(480, 320)), "PNG")[:800], "cannot be decoded"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64, "cannot be decoded"),
    ],
)
def test_what_is_no_image_says_why(content, reason):
    with pytest.raises(ImageError, match=reason):
        decode(content)


def test_without_the_package_a_heic_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match="HEIC needs the package pillow-heif"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64)


def test_files(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"12345")
    assert read_image_file(path) == b"12345"
    with pytest.raises(ImageError, match=r"at most 0 MB"):
        read_image_file(path, Limits(bytes=4))
    for none in (tmp_path, tmp_path / "b.png", tmp_path / "a\0b", tmp_path / ("long" * 100)):
        with pytest.raises(ImageError, match="no such file|cannot be read|no file can have this name"):
            read_image_file(none)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", pytest.param("HEIC", marks=needs_heif), "GIF", "PPM"]
)
@given(data=st.data())
def test_damaged_bytes_are_an_image_or_an_image_error(kind, data):
    content = bytearray(
        encode(Image.fromarray(scene(48, 32)), kind, **({} if kind in ("GIF", "PPM") else {"orientation": 6}))
    )
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=5)):
        content[place] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    for read in (decode, decode_with_alpha, measure):
        with contextlib.suppress(ImageError):
            read(content, limits=Limits(pixels=1_000_000))


REFERENCES = {
    "upright.png": ("exif6.png", "orientation6.tiff", "upright.jpg", "exif3.jpg", "exif6.jpg", "motion_photo.jpg"),
    "badge_white.png": ("badge_rgba.png", "badge_palette.png"),
    "gray8.png": ("gray16.png",),
    "upright.jpg": ("jpeg_called.heic",),
}


@pytest.mark.parametrize(("reference", "name"), [(one, name) for one, names in REFERENCES.items() for name in names])
def test_files_of_users(shared, reference, name):
    folder = shared / "inputs" / "images"
    if not folder.is_dir():
        pytest.skip("there is no folder ../shared/inputs")
    expected = np.asarray(decode((folder / reference).read_bytes())).astype(int)
    assert difference((folder / name).read_bytes(), expected) <= (1 if name.endswith((".jpg", ".heic")) else 0)

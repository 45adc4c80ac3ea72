"""An image has one set of pixels: for the embedding job, the dual encoders, an index, a search and the report."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageCms

from pipeline.app.search.folder_files import FoundFile
from pipeline.app.search.galleries import FolderGallery, Gallery
from pipeline.app.search.indexing import Indexer, decode_reduced
from pipeline.app.search.library import Library
from pipeline.app.search.reference import find_reference
from pipeline.artifacts import ShardSet, schemas, write_table
from pipeline.artifacts.decoding import ImageError, decode_file
from pipeline.config import PriorDataParams, load_params
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.readers import ImageReader, ImageStore, PairReader, TripletReader, training_rows
from pipeline.encoders.embedding.rows import EncoderRow
from pipeline.encoders.embedding.rows import decode as decode_row
from pipeline.encoders.embedding.vectors import embedding_job
from pipeline.encoders.image_source import ImageTable
from pipeline.query.models import Models
from pipeline.report.thumbnails import load_images
from pipeline.sources.web.samples import Sample, checked
from tests.artifacts.encoded_images import LOSSY, encode, lying, pillow_heif, scene
from tests.sections import section

WIDTH, HEIGHT = 61, 37
ORIENTED = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", *(["HEIC"] if pillow_heif else []))


def clear_corner(pixels: np.ndarray) -> Image.Image:
    """The pixels as RGBA, transparent in a quarter."""
    alpha = np.full(pixels.shape[:2], 255, np.uint8)
    alpha[: len(alpha) // 2, : len(alpha[0]) // 2] = 0
    return Image.fromarray(np.dstack([pixels, alpha]))


def on_white(pixels: np.ndarray) -> np.ndarray:
    """What is seen of `clear_corner`."""
    alpha = np.asarray(clear_corner(pixels))[..., 3:]
    return np.where(alpha == 0, 255, pixels)


def matrix() -> dict[str, tuple[bytes, np.ndarray, float]]:
    """File name -> its content, the pixels that it must show, uint8 [H, W, 3], and the mean difference it may have."""
    upright = scene(WIDTH, HEIGHT)
    grey = np.repeat(upright[..., 1:2], 3, -1)
    made = {}
    for kind in ORIENTED:
        lossy = LOSSY.get(kind, 0)
        for orientation in range(1, 9):
            stored = Image.fromarray(np.ascontiguousarray(lying(upright, orientation)))
            made[f"rgb{orientation}.{kind.lower()}"] = (encode(stored, kind, orientation), upright, lossy)
    wide = Image.fromarray(grey[..., 0].astype(np.uint16) * 257)
    half_clear, seen = clear_corner(upright), on_white(upright)
    for kind in ("PNG", "TIFF"):
        made[f"wide.{kind.lower()}"] = encode(wide, kind), grey, 0
        made[f"grey.{kind.lower()}"] = encode(Image.fromarray(grey[..., 0]), kind), grey, 0
    for kind in ("PNG", "TIFF", "WEBP"):
        lossless = {"lossless": True} if kind == "WEBP" else {}
        made[f"rgba.{kind.lower()}"] = encode(half_clear, kind, **lossless), seen, LOSSY.get(kind, 0)
    made["turned_rgba.png"] = (
        encode(Image.fromarray(np.ascontiguousarray(lying(np.asarray(half_clear), 6))), "PNG", 6),
        seen,
        0,
    )
    made["float.tiff"] = encode(Image.fromarray(grey[..., 0].astype(np.float32) / 255), "TIFF"), grey, 0.5
    made["cmyk.jpeg"] = encode(Image.fromarray(upright).convert("CMYK"), "JPEG"), upright, LOSSY["JPEG"]
    made["plain.bmp"] = encode(Image.fromarray(upright), "BMP"), upright, 0
    made["plain.ppm"] = encode(Image.fromarray(upright), "PPM"), upright, 0
    made["wrong_ending.png"] = encode(Image.fromarray(grey[..., 0]), "JPEG"), grey, LOSSY["JPEG"]
    return made


class Recorder:
    """An encoder that keeps what it is shown."""

    dim = 2

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def embed(self, inputs) -> np.ndarray:
        self.seen += [np.asarray(one.image) for one in inputs]
        return np.ones((len(inputs), self.dim), np.float32)


Pixels = dict[str, np.ndarray]
OPTIONS = JobOptions(4, 1_000, max_rejected_share=0.0)


def images_table(folder: Path, contents: dict[str, bytes]) -> ShardSet:
    rows = [{"image_id": name, "bytes": content, "width": 1, "height": 1} for name, content in contents.items()]
    write_table(folder, pa.Table.from_pylist(rows, schema=schemas.IMAGES), {})
    return ShardSet.open(folder)


def files_table(folder: Path, paths: dict[str, Path]) -> ShardSet:
    whole = {"crop": None, "sha256": "", "width": 1, "height": 1}
    rows = [{"image_id": name, "path": path.as_posix()} | whole for name, path in paths.items()]
    write_table(folder, pa.Table.from_pylist(rows, schema=schemas.IMAGE_FILES), {})
    return ShardSet.open(folder)


def through_the_stages(images: ShardSet, folder: Path) -> dict[str, Pixels]:
    """What each reader of the embedding job shows to an encoder, what the dual encoders see, and the report."""
    ids = images.table(["image_id"])["image_id"].to_pylist()
    pairs = [
        {"pair_id": f"{name}/short", "image_id": name, "caption": name, "caption_kind": "short", "phrases": []}
        for name in ids
    ]
    triplets = [
        {"triplet_id": name, "reference_id": name, "target_id": name, "instruction": name, "target_description": name}
        for name in ids
    ]
    write_table(folder / "pairs", pa.Table.from_pylist(pairs, schema=schemas.PAIRS), {})
    write_table(folder / "triplets", pa.Table.from_pylist(triplets, schema=schemas.TRIPLETS), {})
    store, triplet_table = ImageStore(images, set(ids)), ShardSet.open(folder / "triplets")
    readers = {
        "images": ImageReader(images),
        "pairs": PairReader(images, ShardSet.open(folder / "pairs"), training_rows(section(PriorDataParams))),
        "triplets": TripletReader(triplet_table, "instruction", "reference_id", store),
    }
    found = {}
    for name, reader in readers.items():
        recorder = Recorder()
        run_job(reader, embedding_job(recorder), folder / "vectors" / name, {}, OPTIONS)
        found[f"job of {name}"] = dict(zip(ids, recorder.seen, strict=True))
    table = ImageTable(images.folder)
    found["dual encoders"] = {name: np.asarray(table.image(name)) for name in ids}
    shown = load_images(images.folder, ids, side=2_000)
    found["report"] = {name: np.asarray(image.convert("RGB")) for name, image in shown.items()}
    return found


def through_the_app(photos: Path, names: list[str]) -> dict[str, Pixels]:
    """What `cir index` shows to an encoder, and what a search and the page read of the same folder."""
    library, recorder = Library.create(photos / ".cir", photos), Recorder()
    space = SimpleNamespace(name="fused", embedder=recorder, identity={})
    Indexer(library, Models(load_params()), [space]).update([FoundFile(photos.resolve() / name) for name in names])
    gallery = FolderGallery(library)
    references = {name: find_reference(str(photos / name), gallery) for name in names}
    assert all(image_id == name for name, (_, image_id) in references.items())
    return {
        "cir index": dict(zip(names, recorder.seen, strict=True)),
        "cir search": {name: np.asarray(image) for name, (image, _) in references.items()},
        "gallery": {name: np.asarray(gallery.image(name)) for name in names},
    }


def all_ways(photos: Path, names: list[str], folder: Path) -> dict[str, Pixels]:
    contents = {name: (photos / name).read_bytes() for name in names}
    return through_the_stages(images_table(folder / "images", contents), folder) | through_the_app(photos, names)


def assert_equal(found: dict[str, Pixels]) -> None:
    first, *others = found
    for other in others:
        assert found[other].keys() == found[first].keys()
        for name, pixels in found[first].items():
            np.testing.assert_array_equal(found[other][name], pixels, f"{name}: {other} and {first} differ")


def test_an_image_has_the_same_pixels_everywhere(tmp_path):
    photos, cases = tmp_path / "photos", matrix()
    photos.mkdir()
    for name, (content, _, _) in cases.items():
        (photos / name).write_bytes(content)
    found = all_ways(photos, sorted(cases), tmp_path)
    assert_equal(found)
    for name, (_, expected, tolerance) in cases.items():
        pixels = found["cir search"][name].astype(int)
        assert pixels.shape == expected.shape, name
        assert np.abs(pixels - expected).mean() <= tolerance, name


def test_files_of_users_have_the_same_pixels_everywhere(tmp_path, shared):
    given = shared / "inputs" / "images"
    if not given.is_dir():
        pytest.skip("there is no folder ../shared/inputs")
    photos = tmp_path / "photos"
    shutil.copytree(given, photos)
    photos.chmod(0o755)
    usable: dict[bytes, str] = {}  # content -> name: a job encodes equal bytes once
    for path in sorted(photos.iterdir()):
        try:
            decode_file(path)
        except ImageError as error:
            assert path.name == "IMG_0001.HEIC", (path.name, error)  # 88 bytes without pixels
        else:
            usable[path.read_bytes()] = path.name
    assert len(usable) == 12
    assert_equal(all_ways(photos, list(usable.values()), tmp_path))


BY_PILLOW = [
    (kind, mode, orientation)
    for kind, modes in (
        ("JPEG", ("RGB", "L", "CMYK")),
        ("PNG", ("RGB", "RGBA", "L", "LA", "P", "1")),
        ("WEBP", ("RGB", "RGBA")),
        ("TIFF", ("RGB", "RGBA", "L", "CMYK")),
    )
    for mode in modes
    for orientation in ((1,) if kind == "TIFF" else (1, 3, 6))  # Pillow turns a TIFF, or not, by how it is opened
]


def test_a_benchmarks_images_are_those_of_the_published_code(tmp_path):
    """Which reads them by `Image.open(path).convert("RGB")`: no orientation, no ground, no profile."""
    paths = {}
    for kind, mode, orientation in BY_PILLOW:
        name = f"{kind}-{mode}-{orientation}"
        paths[name] = tmp_path / name
        image = clear_corner(scene(WIDTH, HEIGHT)).convert(mode)
        icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes() if mode == "RGB" else b""
        paths[name].write_bytes(encode(image, kind, orientation, **({"icc_profile": icc} if icc else {})))
    found = through_the_stages(files_table(tmp_path / "table", paths), tmp_path)
    assert_equal(found)
    for name, path in paths.items():
        with Image.open(path) as image:
            np.testing.assert_array_equal(found["dual encoders"][name], np.asarray(image.convert("RGB")), name)


def ways(photos: Path, name: str) -> dict[str, Callable[[], object]]:
    """Whoever decodes a file, by name."""
    content = (photos / name).read_bytes()
    return {
        "prepare": lambda: accepted(content),
        "job": lambda: decode_row(EncoderRow(name, "", content)),
        "cir index": lambda: decode_reduced(EncoderRow(name, "", content)),
        "cir search": lambda: find_reference(str(photos / name), cast(Gallery, SimpleNamespace(ids=[], id_of=str))),
    }


def accepted(content: bytes) -> None:
    """Raises ValueError for an image that `prepare` rejects."""
    if reason := checked(Sample("one", content, ("a caption",)))[0].reason:
        raise ValueError(reason)


def large(width: int, height: int, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height), 99).save(buffer, kind, **options)
    return buffer.getvalue()


def motion_photo() -> bytes:
    """A JPEG with something behind its end that looks like hundreds of scans, as a video does by chance."""
    return large(64, 48) + b"\0\0\0\x18ftypmp42" + b"\xff\xda" * 400


@pytest.mark.parametrize(
    ("content", "fine"),
    [
        pytest.param(large(8_000, 6_250), True, id="50 megapixels"),
        pytest.param(large(12_000, 9_000), True, id="108 megapixels"),
        pytest.param(large(17_000, 16_000), False, id="272 megapixels"),
        pytest.param(large(9_000, 8_000, "PNG", compress_level=1), False, id="72 megapixels that cannot be reduced"),
        pytest.param(large(7_000, 70), True, id="100 to 1"),
        pytest.param(large(7_001, 70), False, id="more than 100 to 1"),
        pytest.param(motion_photo(), True, id="motion photo"),
    ],
)
def test_one_limit_for_everybody(tmp_path, content, fine):
    (tmp_path / "one").write_bytes(content)
    reasons = set()
    for name, read in ways(tmp_path, "one").items():
        try:
            read()
        except ValueError as error:
            assert not fine, f"{name}: {error}"
            reasons.add(str(error).removeprefix(f"image {tmp_path / 'one'}: "))
        else:
            assert fine, name
    assert len(reasons) == (0 if fine else 1), reasons

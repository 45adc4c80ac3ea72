"""A short run of `python -m tests.fuzz`, and what longer ones have found."""

from pathlib import Path

import pytest
from PIL import Image

from bench.rehearsal import benchmarks as miniature
from pipeline.artifacts.decoding import ImageError, Limits, decode
from pipeline.artifacts.image_formats import count_scans
from pipeline.config import ParameterError, load_params
from pipeline.errors import is_user_error
from pipeline.sources.benchmarks import BenchmarkError, read_annotations
from pipeline.sources.emoji import fetch
from pipeline.sources.errors import SourceError
from tests.fuzz.__main__ import fuzz
from tests.fuzz.readers import Reader, readers
from tests.fuzz.samples import encoded_images, tarball

NAMES = [
    "image from people",
    "image, read in every way",
    "captions",
    "texts in any encoding",
    "ids of paths",
    "ids of a table",
    "image of a job",
    "image of a package",
    "parameters",
    "predictions",
    "fashioniq folder",
    "cirr folder",
    "circo folder",
    "genecis folder",
    "labels of a package",
    "images' package",
    "webdataset",
    "annotations of JourneyDB",
    "images of a CSV",
    "HQ-Edit",
    "shard",
    "manifest",
    "images table",
    "queries table",
    "index manifest",
    "weights",
    "weights' configuration",
]


@pytest.fixture(scope="module")
def every(tmp_path_factory) -> dict[str, Reader]:
    made = readers(tmp_path_factory.mktemp("fuzz"))
    assert list(made) == NAMES
    return made


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", NAMES)
def test_damaged_data_ends_in_a_named_error(every, name):
    fuzz(every[name], 25)


def test_the_harness_reports_what_is_no_named_error(every):
    def read(case):
        if len(case) > 3:
            raise IndexError("not one of ours")

    with pytest.raises(IndexError, match="not one of ours"):
        fuzz(Reader(every["shard"].cases, read), 25)


DEEP = b"[" * 100_000 + b"]" * 100_000
FOUND = [
    ("manifest", DEEP),
    ("manifest", b'{"schema_version": 1, "schema": "", "identity": {}, "shards": []}'),
    ("manifest", b'{"schema_version": 1, "schema": null, "identity": {}, "shards": []}'),
    ("index manifest", b"null"),
    ("index manifest", b"{}"),
    ("annotations of JourneyDB", DEEP),
    ("images of a CSV", b"\x80"),
    ("HQ-Edit", b""),
    ("images table", b""),
    ("shard", b"PAR1"),
    ("weights' configuration", b"[]"),
    ("predictions", DEEP),
    ("parameters", b"seed: ${seed"),
    ("parameters", b"seed: ${runtime}\nruntime:\n  threads: 2"),
    ("parameters", b"\x80"),
    ("parameters", b"a: ["),
    ("parameters", b"sweep: {solver_steps: [2, {}]}"),
    ("parameters", b"sweep: {guidance_scale: [0.5, {}]}"),
    ("parameters", b"seed: *a"),
    ("parameters", b"seed: !!python/object/apply:os.getpid []"),
]


@pytest.mark.parametrize("name, case", FOUND, ids=[f"{name}-{number}" for number, (name, _) in enumerate(FOUND)])
def test_found(every, name, case):
    with pytest.raises(Exception) as raised:
        every[name].read(case)
    assert is_user_error(raised.value), repr(raised.value)


@pytest.mark.parametrize("place", ["../../outside.png", "/etc/hostname", "./dev/../../outside.png", "a\0b", None, 3])
def test_an_image_list_leads_nowhere_else(tmp_path, place):
    root = miniature.write_all(tmp_path)["cirr"]
    miniature.make_image(tmp_path / "outside.png", 0)
    path = root / "image_splits/split.rc2.val.json"
    miniature.dump(path, {"dev-0-0-img0": place})
    with pytest.raises(BenchmarkError, match="split.rc2.val.json"):
        read_annotations("cirr", root, "val")


@pytest.mark.parametrize("name", [None, ["a"], 3, "\ud800"])
def test_a_gallery_is_a_list_of_texts(tmp_path, name):
    root = miniature.write_all(tmp_path)["fashioniq"]
    miniature.dump(root / "image_splits/split.dress.val.json", [name])
    with pytest.raises(BenchmarkError, match="split.dress.val.json: row 0"):
        read_annotations("fashioniq", root, "val")


@pytest.mark.parametrize("side", [float("nan"), float("inf"), 10**400])
def test_a_box_is_within_reason(tmp_path, side):
    root = miniature.write_all(tmp_path)["genecis"]
    images_ = [{"image_id": 500 + number, "instance_bbox": [0, 0, side, 5]} for number in range(3)]
    row = {"condition": "red", "reference": images_[0], "target": images_[1], "gallery": images_[2:]}
    miniature.dump(root / "focus_attribute.json", [row])
    with pytest.raises(BenchmarkError, match="instance_bbox"):
        read_annotations("genecis", root, "focus_attribute")


def test_no_yaml_tag_is_obeyed(tmp_path):
    planted = tmp_path / "planted"
    tag = "!!python/object/apply:pathlib.Path"
    (tmp_path / "params.yaml").write_text(f"seed: {tag}.touch [{tag} [{planted}]]")
    with pytest.raises(ParameterError, match="not readable as YAML"):
        load_params(tmp_path / "params.yaml")
    assert not planted.exists()


def test_a_package_that_unpacks_to_too_much(tmp_path, every, monkeypatch):
    path = tmp_path / "package.tgz"
    path.write_bytes(tarball({"img/a.png": bytes(600), "img/b.png": bytes(600), "other": bytes(10_000)}))
    assert set(fetch.read_members(path, "img/", ".png")) == {"a", "b"}
    monkeypatch.setattr(fetch, "MOST_BYTES", 1000)
    with pytest.raises(SourceError, match="more than 1,000 bytes"):
        fetch.read_members(path, "img/", ".png")


def test_an_image_is_judged_by_its_header_before_its_pixels(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("decoded")

    content = encoded_images()[0]
    monkeypatch.setattr(Image.Image, "convert", refuse)
    with pytest.raises(ImageError, match="20 x 16 pixels, at most 100 are decoded"):
        decode(content, limits=Limits(pixels=100))


def test_a_jpeg_of_endless_scans_is_rejected():
    progressive = next(one for one in encoded_images() if one[:3] == b"\xff\xd8\xff" and count_scans(one) > 1)
    assert decode(progressive).size == (20, 16)
    with pytest.raises(ImageError, match="scans, at most"):
        decode(progressive, limits=Limits(scans=count_scans(progressive) - 1))


def test_formats_that_start_other_programs_are_not_taken(tmp_path):
    path = tmp_path / "image.eps"
    Image.new("RGB", (4, 4)).save(path, "EPS")
    with pytest.raises(ImageError, match="a PostScript document"):
        decode(Path(path).read_bytes())

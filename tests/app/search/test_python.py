"""Searching from Python, as the README shows."""

import io
import pydoc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pipeline
from pipeline import Searcher
from pipeline.app.search.reference import RequestError, as_reference
from pipeline.config import ParameterError
from pipeline.retrieval.filters import FilterError


@pytest.fixture
def opened(in_project) -> Searcher:
    return Searcher.open("photos", threads=1)


def test_a_file_a_pil_image_and_an_array_find_the_same(opened):
    path = next(Path("photos").rglob("*.png"))
    with Image.open(path) as image:
        image.load()
    flat = np.asarray(as_reference(path, opened._inner.gallery)[0])
    found = [opened.search(given, "with a hat", "slerp", top=3) for given in (str(path), path, image, flat)]
    best = [[(hit.id, hit.score) for hit in hits] for hits in found]
    assert best[0] == best[1] and best[2] == best[3]
    assert path.relative_to("photos").as_posix() not in [hit.id for hit in found[0]]  # the reference itself
    assert found[2][0].id == path.relative_to("photos").as_posix()  # whose pixels alone are no name
    first = found[0][0]
    assert first.path == Path("photos").resolve() / first.id and first.path.is_file()
    assert first.image.mode == "RGB" and len(found[0]) == 3


def test_every_mode_goes_through_the_one_decoder(opened, tmp_path):
    gallery, rng = opened._inner.gallery, np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (20, 30, 4), dtype=np.uint8))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "F", "I;16"):
        image = colours.convert("L").convert(mode) if mode in ("F", "I;16") else colours.convert(mode)
        path = tmp_path / ("image.tiff" if mode in ("CMYK", "F") else "image.png")
        (image.convert("RGB") if mode == "YCbCr" else image).save(path)
        assert as_reference(image, gallery)[0].tobytes() == as_reference(path, gallery)[0].tobytes(), mode
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera held upright
    buffer = io.BytesIO()
    colours.convert("RGB").save(buffer, "JPEG", exif=turned)
    assert as_reference(Image.open(buffer), gallery)[0].size == (20, 30)


@pytest.mark.parametrize("given", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros(3, np.uint8), None, 3])
def test_what_is_no_image_is_one_sentence(opened, given):
    with pytest.raises(RequestError, match="^image: "):
        opened.search(given, "with a hat")


def test_wrong_names(opened):
    with pytest.raises(ParameterError, match="magic"):
        opened.search(next(Path("photos").rglob("*.png")), "with a hat", "magic")
    with pytest.raises(RequestError, match=r"nowhere\.jpg"):
        opened.search("nowhere.jpg", "with a hat")
    with pytest.raises(AttributeError, match="has no attribute 'Sercher'"):
        _ = pipeline.Sercher


def test_help_shows_the_public_names():
    shown = pydoc.plain(pydoc.render_doc(pipeline))
    assert "class Searcher" in shown and "open(" in shown and "search(" in shown and "class Found" in shown


def test_a_filter_on_metadata(opened):
    image = next(Path("photos").rglob("*.png"))
    found = opened.among('path like "more/%"').search(image, "with a hat", "slerp")
    assert found and all(hit.id.startswith("more/") for hit in found)
    assert not all(hit.id.startswith("more/") for hit in opened.search(image, "with a hat", "slerp", top=100))
    with pytest.raises(FilterError, match="there is no field 'year'; there are: date, path, size"):
        opened.among("year > 2020")

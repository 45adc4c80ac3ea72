"""A reference that is a gallery's image takes the vector that the index holds, as long as it is the same image."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.app.search.galleries import open_gallery
from pipeline.app.search.indexing import index_folder
from pipeline.app.search.requests import Request
from pipeline.app.search.searcher import Searcher
from pipeline.app.search.steering import Reference, Steering
from pipeline.config import load_params


@pytest.fixture
def encoded(searcher, monkeypatch) -> list[int]:
    """The number of images in each batch that the backbone encodes."""
    backbone, sizes = searcher.models.backbone, []
    encode = type(backbone).encode_image
    monkeypatch.setattr(
        type(backbone), "encode_image", lambda self, images: (sizes.append(len(images)), encode(self, images))[1]
    )
    return sizes


def of_gallery(searcher: Searcher, number: int, **fields) -> Request:
    image_id = searcher.gallery.ids[number]
    return Request(searcher.gallery.image(image_id), "as a chef", "slerp", 5, exclude=image_id, **fields)


def test_only_other_images_are_encoded(searcher, encoded):
    requests = [of_gallery(searcher, number) for number in (0, 4, 9)]
    others = [replace(request, exclude=None) for request in requests]
    alone = searcher.search_together(others)
    assert encoded == [3]
    mixed = searcher.search_together([requests[0], others[1], requests[2]])
    assert encoded == [3, 1]
    for one, other in zip(alone, mixed, strict=True):
        np.testing.assert_allclose(one.vector, other.vector, atol=2e-5)


def test_further_references_are_taken_from_the_index_too(searcher, encoded):
    image_id = searcher.gallery.ids[7]
    image = searcher.gallery.image(image_id)
    found = [
        searcher.search(of_gallery(searcher, 0, steering=Steering((Reference(image, 2.0, name),)))).vector
        for name in (image_id, None)
    ]
    assert encoded == [1]
    np.testing.assert_allclose(*found, atol=2e-5)


def test_a_file_that_has_changed_is_encoded(in_project, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, path in enumerate(sorted(Path("photos").rglob("t*.png"))[:6]):
        shutil.copy(path, photos / f"{number}.png")
    index_folder(photos, load_params(), methods=["slerp"])
    searcher = Searcher(load_params(), open_gallery(photos))
    before = searcher.search(of_gallery(searcher, 2)).vector
    Image.new("RGB", (64, 64), "red").save(photos / "2.png")
    changed = Request(Image.open(photos / "2.png").convert("RGB"), "as a chef", "slerp", 5, exclude="2.png")
    found = searcher.search(changed).vector
    assert not np.allclose(found, before, atol=1e-2)
    np.testing.assert_allclose(found, searcher.search(replace(changed, exclude=None)).vector, atol=2e-5)


def test_an_index_of_codes_gives_no_vectors(searcher, encoded, monkeypatch):
    index = searcher._index(searcher._family("slerp").spaces["clip"], "slerp")
    monkeypatch.setitem(index.manifest, "kind", "ivfpq")
    searcher.search(of_gallery(searcher, 0))
    assert encoded == [1]

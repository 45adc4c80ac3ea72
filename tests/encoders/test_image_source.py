"""Images by id, and the square that a dual encoder sees of them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.artifacts import ArtifactError
from pipeline.artifacts.images import chosen_images
from pipeline.encoders.image_source import ImageTable, InMemoryImages, centre_square


def test_a_table_and_images_in_memory_give_the_same_pixels(make, tmp_path):
    make.images(tmp_path, ["a", "b", "c"], rows_per_shard=2)
    table = ImageTable(tmp_path)
    memory = InMemoryImages({name: table.image(name) for name in table.ids})
    pixels = table.pixels(["c", "a"], 16)
    assert pixels.shape == (2, 3, 16, 16) and pixels.dtype == torch.uint8
    assert torch.equal(pixels, memory.pixels(["c", "a"], 16))


def test_an_image_that_is_not_there_is_an_error_naming_it(make, tmp_path):
    make.images(tmp_path, ["a"])
    with pytest.raises(ArtifactError, match="image 'z' is not there"):
        ImageTable(tmp_path).image("z")


@pytest.mark.parametrize("size", [(64, 32), (32, 64)])
def test_the_square_is_the_centre(size):
    """Red on one half and blue on the other: the centre has as much of both."""
    image = Image.new("RGB", size, "red")
    width, height = size
    image.paste("blue", (width // 2, 0, width, height) if width > height else (0, height // 2, width, height))
    seen = np.asarray(centre_square(image, 16)).astype(int)
    assert seen.shape == (16, 16, 3)
    assert abs(seen[..., 0].mean() - seen[..., 2].mean()) < 2 and seen[..., 1].max() == 0


def test_an_image_of_the_right_size_stays_itself():
    image = Image.new("RGB", (16, 16))
    assert centre_square(image, 16) is image


@pytest.mark.parametrize("in_memory", [2**30, 0])
def test_only_the_wanted_images_are_held(make, tmp_path, monkeypatch, in_memory):
    make.images(tmp_path / "images", ["a", "b", "c", "d"], rows_per_shard=2)
    whole = ImageTable(tmp_path / "images")
    monkeypatch.setattr(chosen_images, "__defaults__", (in_memory,))
    some = ImageTable(tmp_path / "images", {"d", "a", "unknown"})
    assert some.ids == ["a", "d"] and (tmp_path / ".images.mapped").is_dir() == (in_memory == 0)
    for table in (some, pickle.loads(pickle.dumps(some))):
        assert torch.equal(table.pixels(["d", "a"], 16), whole.pixels(["d", "a"], 16))
    with pytest.raises(ArtifactError, match="image 'b' is not there"):
        some.image("b")

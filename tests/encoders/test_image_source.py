"""Images by id, and the square that a dual encoder sees of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.artifacts import ArtifactError
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

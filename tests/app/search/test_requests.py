"""Requests, controls and regions: what is rejected, and with which sentence."""

import numpy as np
import pytest
from PIL import Image

from pipeline.app.search.requests import MAX_TEXT, Request, RequestError, read_region, region_of_mask
from pipeline.query.interface import ControlError, Controls


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": None}, "no reference image"),
        ({"text": "  "}, "the modification is empty"),
        ({"text": "x" * 5_000}, "the modification has 5,000 characters, at most 1,000"),
        ({"concept": "x" * (MAX_TEXT + 1)}, "the shared concept has 1,001"),
        ({"top": 0}, "top: 0 is not between 1 and 200"),
    ],
)
def test_requests_that_are_rejected(changes, reason):
    given = {"image": Image.new("RGB", (4, 4)), "text": "red"} | changes
    with pytest.raises(RequestError, match=reason):
        Request(**given)


@pytest.mark.parametrize(
    ("controls", "reason"),
    [
        ({"guidance_scale": float("nan")}, "guidance_scale: nan"),
        ({"control_scale": -1.0}, "control_scale: -1.0 is not between 0 and 20"),
        ({"hypotheses": 0}, "hypotheses: 0"),
        ({"negative_weight": 2.0}, "negative_weight: 2.0"),
    ],
)
def test_controls_out_of_range(controls, reason):
    with pytest.raises(ControlError, match=reason):
        Controls(**controls)


def test_a_box_is_a_region():
    region = np.asarray(read_region("0.5,0,1,0.25", (40, 20)))
    assert region.shape == (20, 40) and set(region[:5, 20:].flat) == {255} and region.sum() == 255 * 5 * 20


def test_a_mask_of_another_size_is_scaled_to_the_reference(tmp_path):
    mask = np.zeros((20, 40), np.uint8)
    mask[3:9, 10:31] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    twice = np.asarray(read_region(str(tmp_path / "mask.png"), (80, 40)))
    np.testing.assert_array_equal(twice, np.kron(mask, np.ones((2, 2), np.uint8)))


def test_a_mask_of_another_shape_is_rejected(tmp_path):
    Image.new("L", (40, 20), 255).save(tmp_path / "mask.png")
    with pytest.raises(RequestError, match="40 x 20, is not the reference's, 20 x 20"):
        read_region(str(tmp_path / "mask.png"), (20, 20))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("1,2,3", "neither"),
        ("0,0,2,1", "needs 0 <="),
        ("0.5,0,0.5,1", "needs 0 <="),
        ("no.png", "neither"),
        ("a,b,c,d", "neither"),
    ],
)
def test_what_is_no_region(given, reason):
    with pytest.raises(RequestError, match=reason):
        read_region(given, (40, 20))


def test_an_empty_region_is_rejected():
    with pytest.raises(RequestError, match="the region is empty"):
        region_of_mask(np.zeros((4, 4), bool))

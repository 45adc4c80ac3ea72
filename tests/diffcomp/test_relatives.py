"""Nearest relatives against brute force, and what tells a caption from another."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.diffcomp import relatives as module
from pipeline.diffcomp.relatives import difference, nearest_relatives


def units(*shape, seed=0):
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("rows", [3, 2048])
def test_nearest_relatives_are_the_nearest_of_other_captions(rows, monkeypatch):
    monkeypatch.setattr(module, "ROWS", rows)
    images, captions = units(20, 6), torch.arange(20) // 2
    found = nearest_relatives(images, captions, 4)
    for i in range(20):
        others = [j for j in range(20) if captions[j] != captions[i]]
        expected = sorted(others, key=lambda j: -float(images[i] @ images[j]))[:4]
        assert found[i].tolist() == expected


def test_too_few_other_captions_are_refused():
    with pytest.raises(ValueError, match="3 relatives wanted, .* only 2"):
        nearest_relatives(units(5, 4), torch.tensor([0, 0, 0, 1, 2]), 3)


@pytest.mark.parametrize(
    ("caption", "other", "expected"),
    [
        ("woman firefighter with dark skin tone", "woman teacher with dark skin tone", "firefighter"),
        ("kiss, woman", "kiss, man", "woman"),
        ("red heart", "red heart on fire", "red heart"),
    ],
    ids=["a word", "a comma is no word", "nothing left"],
)
def test_difference(caption, other, expected):
    assert difference(caption, other) == expected


@given(st.lists(st.sampled_from("abcdef"), min_size=1), st.lists(st.sampled_from("abcdef")))
def test_difference_says_only_what_the_other_lacks(caption, other):
    left = difference(" ".join(caption), " ".join(other)).split()
    assert left == ([word for word in caption if word not in other] or caption)

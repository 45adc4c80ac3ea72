"""Nearest relatives and telling phrases against brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.diffcomp import relatives as module
from pipeline.diffcomp.relatives import nearest_relatives, telling_phrases


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


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_telling_phrases(counts, seed):
    offsets = torch.tensor([0, *counts]).cumsum(0)
    rows = (sum(counts), len(counts), len(counts))
    phrases, images, relatives = (units(count, 5, seed=seed + number) for number, count in enumerate(rows))
    chosen = telling_phrases(phrases, offsets, images, relatives)
    for b, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        tells = [float(phrases[i] @ images[b] - phrases[i] @ relatives[b]) for i in range(start, end)]
        assert start <= int(chosen[b]) < end
        assert abs(tells[int(chosen[b]) - start] - max(tells)) < 1e-5

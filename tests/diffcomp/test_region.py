"""A region painted on the reference, and a negative text subtracted."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import DiffCompParams
from pipeline.diffcomp import DiffComp, subtract
from pipeline.diffcomp.masking import attention_bias
from pipeline.encoders.dual.interface import unit
from tests.sections import section


@pytest.fixture
def make_model(make_encoder):
    def make(**changes) -> DiffComp:
        return DiffComp(make_encoder(), section(DiffCompParams, image_layers=1, text_layers=1, **changes)).eval()

    return make


@pytest.fixture
def queries(make_encoder, pixels):
    encoder = make_encoder()
    return encoder.normalise(pixels), encoder.tokenize(["a red ball"] * 6)


@torch.no_grad()
def test_super_patches_under_the_region_are_masked_and_the_others_kept(make_model, queries):
    """By hand: the patches of the image's left upper quarter are hidden from the attention."""
    model, (images, texts) = make_model(), queries
    region = torch.zeros(6, 32, 32)
    region[:, :16, :16] = 1
    mask = torch.zeros(4, 4)
    mask[:2, :2] = 1
    encoder = model.encoder
    bias = attention_bias(mask.flatten().expand(6, -1))
    tokens = encoder.run(encoder.embed_patches(images), 0, 2, bias)
    image = encoder.project(encoder.run(tokens, 2, 3, bias)[:, 0])
    local = model.super_patches.encode(encoder, tokens, tokens, model.super_patches.assign(tokens))
    retained = torch.tensor([[0.0, 1, 1, 1]]).expand(6, -1)
    expected = model.composition(image, local, model.encode_text(texts), retained)
    torch.testing.assert_close(model.compose(images, texts, region), expected)
    assert not torch.allclose(model.compose(images, texts, region), model.compose(images, texts), atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"dac": False}, {"phi": 0.0}, {"css": False}])
def test_a_region_over_everything_leaves_nothing_of_the_image(make_model, queries, changes):
    model, (images, texts) = make_model(**changes), queries
    everything = torch.ones(6, 32, 32)
    composed = model.compose(images, texts, everything)
    torch.testing.assert_close(composed, composed[:1].expand_as(composed))
    assert model.compose(images, texts).var(dim=0).sum() > 1e-4
    maps = model.kept_map(images, texts, everything)
    torch.testing.assert_close(maps, maps[:1].expand_as(maps))


@torch.no_grad()
def test_no_region_and_an_empty_one_are_the_same(make_model, queries):
    model, (images, texts) = make_model(), queries
    torch.testing.assert_close(model.compose(images, texts, torch.zeros(6, 9, 9)), model.compose(images, texts))


def test_cover_counts_what_is_painted_at_least_half(make_model):
    css = make_model().super_patches  # 2 x 2 super-patches of 16 pixels
    assignment = css.assign(torch.zeros(1, 17, 64))
    region = torch.zeros(1, 32, 32)
    region[0, :16, :8] = 1  # half of the first
    region[0, 16:, 25:] = 1  # less than half of the last
    assert css.cover(region, assignment).tolist() == [[1, 0, 0, 0]]
    region[0, :16, :8] = 0
    assert css.cover(region, assignment).tolist() == [[0, 0, 0, 1]]  # nothing reaches half: the most painted
    assert css.cover(region * 0, assignment).tolist() == [[0, 0, 0, 0]]


@torch.no_grad()
def test_clusters_can_be_covered_too(make_model, queries):
    model, (images, texts) = make_model(grouping="kmeans"), queries
    region = torch.zeros(6, 32, 32)
    region[:, :, :16] = 1
    composed = model.compose(images, texts, region)
    assert torch.isfinite(composed).all() and not torch.allclose(composed, model.compose(images, texts), atol=1e-3)


@given(angle=st.floats(0.05, 3.0), weight=st.floats(0.0, 1.0))
def test_subtraction_turns_away_along_the_great_circle(angle, weight):
    negative = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    query = torch.tensor([math.cos(angle), math.sin(angle), 0.0], dtype=torch.float64)
    turned = subtract(query, negative, weight)
    after = angle + weight * (math.pi - angle)
    torch.testing.assert_close(
        turned, torch.tensor([math.cos(after), math.sin(after), 0.0], dtype=torch.float64), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_subtraction_of_equal_and_opposite_vectors_is_finite(sign):
    query = unit(torch.randn(4, 8))
    turned = subtract(query, sign * query, 0.2)
    torch.testing.assert_close(turned.norm(dim=-1), torch.ones(4))
    cosine = (turned * query).sum(-1)
    assert (cosine < 0.9).all() if sign == 1 else (cosine > 0.999).all()

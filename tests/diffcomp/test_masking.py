"""PSM: equations 4 to 11, 19 and 20 from numbers written out by hand, and the other rows of table 10."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.diffcomp.losses import difference_loss, ratio_loss
from pipeline.diffcomp.masking import (
    attention_bias,
    crop_mask,
    draw_mask,
    fill,
    guided_scores,
    gumbel_temperature,
    pad_phrases,
    random_mask,
    saliency,
    salient_similarity,
    similarities,
    threshold,
)
from pipeline.encoders.dual.interface import biased_attention


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def units(*shape, seed=0):
    return torch.nn.functional.normalize(torch.randn(*shape, generator=seeded(seed)), dim=-1)


PHRASES = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [0.0, 0.0]]], dtype=torch.float64)  # the third is padding
LOCAL = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]], dtype=torch.float64)
S = [[1.0, 0.0, 0.8], [0.6, 0.8, 0.96]]
"""cos of the two phrases with the three super-patches, by hand."""
MEANS = (1.8 / 3, 2.36 / 3)
"""Of S over super-patches."""


def omega(temperature):
    weights = [np.exp(mean / temperature) for mean in MEANS]
    return [weight / sum(weights) for weight in weights]


def test_equation_4_by_hand():
    np.testing.assert_allclose(similarities(PHRASES, LOCAL)[0, :2], S, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_saliency_by_hand(temperature):
    valid = torch.tensor([[True, True, False]])
    found = saliency(similarities(PHRASES, LOCAL), valid, temperature)
    np.testing.assert_allclose(found[0], [*omega(temperature), 0.0], atol=1e-12)
    if temperature == 1.0:  # e^0.6 = 1.822119, e^0.786667 = 2.196065
        np.testing.assert_allclose(found[0, :2], [0.453468, 0.546532], atol=1e-6)


def test_equation_5_by_hand():
    similarity, weights = similarities(PHRASES, LOCAL), torch.tensor([[0.25, 0.75, 0.0]], dtype=torch.float64)
    # 0.25 * 1.0 + 0.75 * 0.6 = 0.7;  0.75 * 0.8 = 0.6;  0.25 * 0.8 + 0.75 * 0.96 = 0.92
    np.testing.assert_allclose(guided_scores(weights, similarity)[0], [0.7, 0.6, 0.92], atol=1e-12)
    np.testing.assert_allclose(salient_similarity(weights, similarity)[0], S[1], atol=1e-12)


def test_phrases_of_several_images_are_padded():
    phrases, offsets = units(6, 8), torch.tensor([0, 1, 4, 6])
    padded, valid = pad_phrases(phrases, offsets)
    assert padded.shape == (3, 3, 8) and valid.sum(1).tolist() == [1, 3, 2]
    for image in range(3):
        assert torch.equal(padded[image][valid[image]], phrases[offsets[image] : offsets[image + 1]])


@pytest.mark.parametrize("offsets", [[0, 0, 2], [0, 1, 1], [0, 1, 3], [1, 2], [0]])
def test_an_image_without_phrases_is_refused(offsets):
    with pytest.raises(ValueError, match="phrase offsets"):
        pad_phrases(units(2, 4), torch.tensor(offsets))


@given(st.floats(0.05, 0.95), st.floats(1.0, 100.0), st.integers(1, 40), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_the_first_threshold_masks_a_share_of_eta(eta, gamma, count, seed):
    scores = torch.rand(3, count, generator=seeded(seed)) * 2 - 1
    b = threshold(scores, gamma, eta)
    assert (gamma * scores.double() + b).sigmoid().mean().item() == pytest.approx(eta, abs=1e-6)


def test_the_temperature_falls_over_the_first_half():
    assert [gumbel_temperature(done, 1.0, 0.1) for done in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx(
        [1.0, 0.55, 0.1, 0.1, 0.1]
    )


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_equations_7_and_8_by_hand(temperature):
    """Two-class Gumbel-softmax written out: softmax over ((l + g_1) / t, g_0 / t), and its rounding."""
    logits = torch.tensor([[0.3, -1.2, 2.0]], dtype=torch.float64)
    g = -np.log(torch.empty(2, 1, 3).exponential_(generator=seeded(5)).double().numpy())
    masked, kept = np.exp((logits.numpy() + g[0]) / temperature), np.exp(g[1] / temperature)
    soft = masked / (masked + kept)
    np.testing.assert_allclose(draw_mask(logits, "gumbel", 0.5, temperature, seeded(5)), soft, atol=1e-6)
    hard = draw_mask(logits, "straight_through", 0.5, temperature, seeded(5))
    np.testing.assert_allclose(hard, (soft > 0.5).astype(float), atol=1e-12)


def test_a_drawn_mask_follows_its_probabilities():
    logits = torch.tensor([[-2.0, 0.0, 1.0]]).expand(4000, -1)
    share = draw_mask(logits, "straight_through", 0.5, 0.3, seeded()).mean(0)
    torch.testing.assert_close(share, logits[0].sigmoid(), atol=0.03, rtol=0)


def test_straight_through_gradient_is_the_soft_paths():
    logits = torch.randn(2, 6, generator=seeded(), dtype=torch.float64).requires_grad_()
    weight = torch.randn(2, 6, generator=seeded(1), dtype=torch.float64)
    (draw_mask(logits, "straight_through", 0.5, 0.7, seeded(3)) * weight).sum().backward()

    def soft(values):
        return (draw_mask(values, "gumbel", 0.5, 0.7, seeded(3)) * weight).sum().item()

    step = 1e-6
    for index in np.ndindex(2, 6):
        shifted = logits.detach().clone()
        shifted[index] += step
        ahead = soft(shifted)
        shifted[index] -= 2 * step
        numeric = (ahead - soft(shifted)) / (2 * step)
        assert abs(numeric - logits.grad[index].item()) < 1e-6


def test_mask_models():
    logits = torch.randn(4, 10, generator=seeded()).requires_grad_()
    hard = draw_mask(logits, "hard", 0.7, 1.0, None)
    assert hard.sum(1).tolist() == [7.0] * 4 and not hard.requires_grad
    assert torch.equal(draw_mask(logits, "sigmoid", 0.7, 1.0, None), logits.sigmoid())
    soft = draw_mask(logits, "gumbel", 0.7, 1.0, seeded())
    assert ((soft > 0) & (soft < 1)).all()
    torch.testing.assert_close(draw_mask(logits, "straight_through", 0.7, 1.0, seeded()), (soft > 0.5).float())
    with pytest.raises(ValueError, match="coin"):
        draw_mask(logits, "coin", 0.7, 1.0, None)


@given(st.integers(1, 30), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_random_masks_hold_exactly_the_rounded_share(count, eta, seed):
    mask = random_mask(5, count, eta, seeded(seed))
    assert mask.sum(1).tolist() == [float(round(eta * count))] * 5
    assert torch.equal(mask, random_mask(5, count, eta, seeded(seed)))


@pytest.mark.parametrize(
    "shape, eta", [((4, 4), 0.7), ((8, 8), 0.7), ((8, 8), 0.3), ((2, 2), 0.5), ((3, 5), 1.0), ((4, 4), 0.0)]
)
def test_crop_keeps_one_rectangle(shape, eta):
    count = shape[0] * shape[1]
    mask = crop_mask(6, shape, eta, seeded()).view(6, *shape)
    for kept in 1 - mask:
        rows, columns = kept.amax(1).sum(), kept.amax(0).sum()
        assert rows * columns == kept.sum()
        assert abs(kept.sum().item() - (1 - eta) * count) <= max(shape)


def test_filled_patches_are_the_others_and_the_rest_stay():
    patches, others = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    filled = fill(patches, others, torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 1]]))
    assert torch.equal(filled[0, 0], others[0, 0]) and torch.equal(filled[1, 2:], others[1, 2:])
    assert torch.equal(filled[0, 1:], patches[0, 1:]) and torch.equal(filled[1, :2], patches[1, :2])


def weighed(scores, values, mask):
    """Equations (9) to (11) as a weighted mean: each key counts exp(score) (1 - M), CLS in front is never masked."""
    weights = np.exp(scores) * np.array([1.0, *(1 - np.array(mask))])
    return weights @ values / weights.sum()


@pytest.mark.parametrize("mask", [[0.0, 0.0], [0.3, 0.8], [1.0, 0.0], [1.0, 1.0]])
def test_masked_attention_by_hand(mask):
    query = torch.tensor([[[[1.0, 0.0], [0.5, -0.5], [0.2, 2.0]]]], dtype=torch.float64)
    key = torch.tensor([[[[0.3, 0.1], [2.0, 1.0], [-1.0, 0.4]]]], dtype=torch.float64)
    value = torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]]], dtype=torch.float64)
    bias = attention_bias(torch.tensor([mask], dtype=torch.float64))
    assert bias.shape == (1, 3) and bias[0, 0] == 0
    found = biased_attention(query, key, value, bias)[0, 0]
    scores = query[0, 0].numpy() @ key[0, 0].numpy().T / np.sqrt(2)
    expected = [weighed(row, value[0, 0].numpy(), mask) for row in scores]
    np.testing.assert_allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize("mask", [[0.3, 0.8], [0.0, 0.5], [1.0, 0.0], [1.0, 1.0]])
def test_the_gradient_of_masked_attention_by_hand(mask):
    """d / dM_n of the weighted mean: -exp(s_n) (v_n - out) / sum, finite also where M is one."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 1, 3, 4, dtype=torch.float64) for _ in range(3))
    drawn = torch.tensor([mask], dtype=torch.float64, requires_grad=True)
    biased_attention(query, key, value, attention_bias(drawn))[0, 0, 0].sum().backward()
    scores = (query[0, 0, :1] @ key[0, 0].T)[0].numpy() / 2
    total = np.exp(scores[0]) + sum(np.exp(scores[n + 1]) * (1 - mask[n]) for n in range(2))
    out = weighed(scores, value[0, 0].numpy(), mask)
    expected = [-np.exp(scores[n + 1]) * (value[0, 0, n + 1].numpy() - out).sum() / total for n in range(2)]
    np.testing.assert_allclose(drawn.grad[0], expected, atol=1e-6)


def test_ratio_and_difference_losses_by_hand():
    mask = torch.tensor([[1.0, 1, 0, 0], [1, 1, 1, 1]], dtype=torch.float64)
    assert ratio_loss(mask, 0.7).item() == pytest.approx(((0.5 - 0.7) ** 2 + (1 - 0.7) ** 2) / 2)
    salient = torch.tensor([[0.4, 0.2, 0.9, 0.9], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    assert difference_loss(salient, mask).item() == pytest.approx(-(0.3 + 0.25) / 2)
    assert difference_loss(salient, 0 * mask).item() == 0.0
    leaves = (salient.requires_grad_(), (0.2 + 0.6 * mask).requires_grad_())
    assert torch.autograd.gradcheck(difference_loss, leaves)
    assert torch.autograd.gradcheck(lambda soft: ratio_loss(soft, 0.7), leaves[1:])

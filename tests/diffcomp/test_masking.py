"""PSM: scores over ragged phrases, the masked share, the straight-through gradient, the other rows of table 10."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.diffcomp.losses import ratio_loss
from pipeline.diffcomp.masking import (
    alignment,
    apply_mask,
    crop_mask,
    draw_mask,
    mask_logits,
    pad_phrases,
    random_mask,
    saliency,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def units(*shape, seed=0):
    return torch.nn.functional.normalize(torch.randn(*shape, generator=seeded(seed)), dim=-1)


def test_alignment_is_the_best_of_an_images_own_phrases():
    phrases, local, offsets = units(6, 8), units(3, 4, 8, seed=1), torch.tensor([0, 1, 4, 6])
    padded, valid = pad_phrases(phrases, offsets)
    assert padded.shape == (3, 3, 8) and valid.sum(1).tolist() == [1, 3, 2]
    scores = alignment(padded, valid, local)
    for image in range(3):
        own = phrases[offsets[image] : offsets[image + 1]].numpy()
        np.testing.assert_allclose(scores[image].numpy(), (own @ local[image].numpy().T).max(0), atol=1e-6)


@pytest.mark.parametrize("offsets", [[0, 0, 2], [0, 1, 1], [0, 1, 3], [1, 2], [0]])
def test_an_image_without_phrases_is_refused(offsets):
    with pytest.raises(ValueError, match="phrase offsets"):
        pad_phrases(units(2, 4), torch.tensor(offsets))


@given(st.floats(0.05, 0.95), st.floats(0.01, 1.0), st.integers(1, 40), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_expected_masked_share_is_rho(rho, temperature, count, seed):
    scores = torch.rand(3, count, generator=seeded(seed)) * 2 - 1
    share = mask_logits(scores, rho, temperature).sigmoid().mean(1)
    torch.testing.assert_close(share, torch.full((3,), rho), atol=2e-3, rtol=0)


def test_drawn_masked_share_is_near_rho_and_follows_the_scores():
    scores = torch.rand(64, 16, generator=seeded())
    logits = mask_logits(scores, 0.7, 0.1)
    mask = torch.stack([draw_mask(logits, "straight_through", 0.7, seeded(n)) for n in range(20)])
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert abs(mask.mean().item() - 0.7) < 0.01
    torch.testing.assert_close(mask.mean(0), logits.sigmoid(), atol=0.5, rtol=0)
    assert np.corrcoef(mask.mean(0).flatten(), scores.flatten())[0, 1] > 0.8


def test_logits_let_the_gradient_through_the_scores_but_not_the_threshold():
    scores = torch.rand(2, 5, requires_grad=True)
    mask_logits(scores, 0.5, 0.1).sum().backward()
    torch.testing.assert_close(scores.grad, torch.full((2, 5), 10.0))


def test_straight_through_gradient_is_the_soft_paths():
    logits = torch.randn(2, 6, generator=seeded(), dtype=torch.float64).requires_grad_()
    weight = torch.randn(2, 6, generator=seeded(1), dtype=torch.float64)
    (draw_mask(logits, "straight_through", 0.5, seeded(3)) * weight).sum().backward()

    def soft(values):
        return (draw_mask(values, "gumbel", 0.5, seeded(3)) * weight).sum().item()

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
    hard = draw_mask(logits, "hard", 0.7, None)
    assert hard.sum(1).tolist() == [7.0] * 4 and not hard.requires_grad
    assert torch.equal(draw_mask(logits, "sigmoid", 0.7, None), logits.sigmoid())
    soft = draw_mask(logits, "gumbel", 0.7, seeded())
    assert ((soft > 0) & (soft < 1)).all()
    torch.testing.assert_close(draw_mask(logits, "straight_through", 0.7, seeded()), (soft > 0.5).float())
    with pytest.raises(ValueError, match="coin"):
        draw_mask(logits, "coin", 0.7, None)


@given(st.integers(1, 30), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_random_masks_hold_exactly_the_rounded_share(count, rho, seed):
    mask = random_mask(5, count, rho, seeded(seed))
    assert mask.sum(1).tolist() == [float(round(rho * count))] * 5
    assert torch.equal(mask, random_mask(5, count, rho, seeded(seed)))


@pytest.mark.parametrize(
    "shape, rho", [((4, 4), 0.7), ((8, 8), 0.7), ((8, 8), 0.3), ((2, 2), 0.5), ((3, 5), 1.0), ((4, 4), 0.0)]
)
def test_crop_keeps_one_rectangle(shape, rho):
    count = shape[0] * shape[1]
    mask = crop_mask(6, shape, rho, seeded()).view(6, *shape)
    for kept in 1 - mask:
        rows, columns = kept.amax(1).sum(), kept.amax(0).sum()
        assert rows * columns == kept.sum()
        assert abs(kept.sum().item() - (1 - rho) * count) <= max(shape)


def test_masked_patches_become_the_token_and_the_rest_stay():
    patches, token = torch.randn(2, 4, 3), torch.randn(3)
    masked = apply_mask(patches, token, torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 1]]))
    assert torch.equal(masked[0, 0], token) and torch.equal(masked[1, 2:], token.expand(2, -1))
    assert torch.equal(masked[0, 1:], patches[0, 1:]) and torch.equal(masked[1, :2], patches[1, :2])


def test_saliency_takes_no_gradient():
    local = units(2, 4, 8).requires_grad_()
    assert not saliency(local, units(2, 8)).requires_grad


def test_ratio_loss():
    mask = torch.tensor([[1.0, 1, 0, 0], [1, 1, 1, 1]])
    assert ratio_loss(mask, 0.7).item() == pytest.approx(((0.5 - 0.7) ** 2 + (1 - 0.7) ** 2) / 2)

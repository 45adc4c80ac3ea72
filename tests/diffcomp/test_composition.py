"""DAC: slerp against a float64 reference, text weights, the two ends of the interpolation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.diffcomp.composition import ANTIPODAL, Composition, discrepancy, linear, slerp


def units(*shape, seed=0, dtype=torch.float32):
    vectors = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return torch.nn.functional.normalize(vectors, dim=-1)


def reference(a, b, t):
    """The textbook formula in float64, for vectors that are neither parallel nor antipodal."""
    a, b = a.double().numpy(), b.double().numpy()
    angle = np.arccos((a * b).sum(-1, keepdims=True))
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_slerp_equals_the_float64_reference(t):
    a, b = units(50, 16), units(50, 16, seed=1)
    np.testing.assert_allclose(slerp(a, b, t).numpy(), reference(a, b, t), atol=2e-6)


@pytest.mark.parametrize("angle", [1e-6, 1e-4, 1e-2, 0.0446, 0.0448, 0.1, 1.5, 3.0, 3.12])
def test_slerp_moves_by_its_share_of_any_angle(angle):
    a, side = torch.eye(8, dtype=torch.float64)[:2]
    b = np.cos(angle) * a + np.sin(angle) * side
    for t in (0.0, 0.3, 0.9, 1.0):
        expected = np.cos(t * angle) * a + np.sin(t * angle) * side
        torch.testing.assert_close(slerp(a, b, t), expected, atol=1e-7, rtol=0)


@given(st.floats(0, 1), st.floats(-7, 0.49), st.booleans(), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_slerp_in_float32_stays_near_a_float64_reference(t, exponent, antipodal, seed):
    """Angles from 1e-7 to 3.1, and as near to pi: along the great circle by its share, whatever cancels in float32."""
    angle = np.pi - 10.0**exponent if antipodal else 10.0**exponent
    a, side = np.linalg.qr(np.random.default_rng(seed).normal(size=(16, 2)))[0].T
    b = np.cos(angle) * a + np.sin(angle) * side
    expected = np.cos(t * angle) * a + np.sin(t * angle) * side
    result = slerp(*(torch.from_numpy(vector).float() for vector in (a, b)), t).double().numpy()
    if 1 + np.cos(angle) > 2 * ANTIPODAL:
        np.testing.assert_allclose(result, expected, atol=2e-4)
    else:  # any great circle will do, and the end lies within the cap around it
        cap = 3 * np.sqrt(2 * ANTIPODAL)
        assert abs(np.arccos(np.clip(result @ a, -1, 1)) - t * np.pi) < cap


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_slerp_of_exactly_parallel_and_exactly_antipodal_vectors(t):
    a = units(6, 16)
    torch.testing.assert_close(slerp(a, a, t), a, atol=1e-6, rtol=0)
    reached = (slerp(a, -a, t) * a).sum(-1).clamp(-1, 1).acos()
    torch.testing.assert_close(
        reached, torch.full((6,), float(t * np.pi)), atol=3 * float(np.sqrt(2 * ANTIPODAL)), rtol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_slerp_is_finite_with_finite_gradients_at_parallel_and_antipodal(sign, dtype):
    a = units(4, 6, dtype=dtype).requires_grad_()
    b = (sign * units(4, 6, dtype=dtype)).requires_grad_()
    for t in (0.0, 0.5, 1.0):
        t = torch.full((4,), t, dtype=dtype, requires_grad=True)
        result = slerp(a, b, t)
        torch.testing.assert_close(result.norm(dim=-1), torch.ones(4, dtype=dtype))
        gradients = torch.autograd.grad((result * torch.arange(6)).sum(), (a, b, t))
        assert all(gradient.isfinite().all() and gradient.abs().max() < 1e3 for gradient in gradients)


@pytest.mark.parametrize("angle", [1e-3, 0.0446, 1.0, 3.0])
def test_slerp_gradcheck(angle):
    a = torch.eye(5, dtype=torch.float64)[:1]
    b = np.cos(angle) * a + np.sin(angle) * torch.eye(5, dtype=torch.float64)[1:2]
    t = torch.tensor([0.3], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        slerp, (a.requires_grad_(), b.requires_grad_(), t.requires_grad_()), eps=1e-7, atol=1e-4
    )


@given(st.floats(0, 1), st.floats(0, np.pi))
@settings(max_examples=60, deadline=None)
def test_slerp_stays_on_the_sphere(t, angle):
    a, side = torch.eye(3)[:2]
    result = slerp(a, float(np.cos(angle)) * a + float(np.sin(angle)) * side, t)
    assert result.isfinite().all() and abs(result.norm().item() - 1) < 1e-5


def test_slerp_cap_is_narrow():
    assert np.degrees(np.arccos(1 - ANTIPODAL)) < 1


@pytest.mark.parametrize("dac", [True, False])
@pytest.mark.parametrize("base, end", [(0.0, "image"), (1.0, "text")])
def test_the_ends_of_alpha_base(base, end, dac):
    vectors = {"image": units(3, 8), "text": units(3, 8, seed=1)}
    composed = Composition(dac, base, lam=0.0)(vectors["image"], units(3, 4, 8, seed=2), vectors["text"])
    torch.testing.assert_close(composed, vectors[end], atol=1e-5, rtol=0)


def test_alpha_base_at_an_end_keeps_gradients_finite():
    module = Composition(alpha_base=1.0, lam=0.4)
    image = units(2, 8).requires_grad_()
    module(image, units(2, 5, 8, seed=2), units(2, 8, seed=1)).sum().backward()
    assert image.grad.isfinite().all() and module.log_kappa.grad.isfinite()


@pytest.mark.parametrize("form", ["sigmoid", "clip"])
def test_text_weighs_more_where_the_image_disagrees(form):
    module = Composition(alpha_base=0.5, alpha_form=form)
    local, text = units(4, 9, 8), units(4, 8, seed=1)
    weights, difference = module.weights(local, text), discrepancy(local, text[:, None])
    assert torch.equal(weights.argsort(1), difference.argsort(1))
    assert ((weights >= 0) & (weights <= 1)).all()


def test_clip_form_is_the_written_formula():
    module = Composition(alpha_base=0.8, alpha_form="clip", kappa=3.0)
    local, text = units(2, 5, 8), units(2, 8, seed=1)
    difference = 1 - np.einsum("bjd,bd->bj", local.numpy(), text.numpy())
    expected = np.clip(0.8 + 3.0 * (difference - difference.mean(1, keepdims=True)), 0, 1)
    np.testing.assert_allclose(module.weights(local, text).detach().numpy(), expected, atol=1e-6)


def test_sigmoid_form_moves_whatever_the_scale_of_the_differences():
    module, text = Composition(alpha_base=0.4), units(1, 8, seed=1)
    near = torch.nn.functional.normalize(text[:, None] + 0.2 * units(1, 16, 8), dim=-1)
    assert module.weights(near, text).std() > 0.05


def test_a_query_is_its_image_s_own_matter():
    """No statistic of other images enters, so neither batch nor training history moves a query's weights."""
    module, image, local, text = Composition(alpha_base=0.3), units(6, 8), units(6, 4, 8, seed=1), units(6, 8, seed=2)
    together = module.eval()(image, local, text)
    module.train()(units(9, 8, seed=3), units(9, 4, 8, seed=4), units(9, 8, seed=5))
    torch.testing.assert_close(module.eval()(image[:2], local[:2], text[:2]), together[:2])


def test_composition_formula():
    module = Composition(alpha_base=0.4, lam=0.4).eval()
    image, local, text = units(3, 8), units(3, 4, 8, seed=1), units(3, 8, seed=2)
    alpha = module.weights(local, text)
    parts = slerp(local, text[:, None], alpha).mean(1)
    whole = slerp(image, text, alpha.mean(1))
    expected = torch.nn.functional.normalize(0.6 * whole + 0.4 * torch.nn.functional.normalize(parts, dim=-1), dim=-1)
    torch.testing.assert_close(module(image, local, text), expected)
    with pytest.raises(ValueError, match="super-patch"):
        module(image, None, text)


def test_without_dac_it_is_one_linear_interpolation():
    image, text = units(3, 8), units(3, 8, seed=1)
    expected = torch.nn.functional.normalize(0.2 * image + 0.8 * text, dim=-1)
    torch.testing.assert_close(Composition(dac=False, alpha_base=0.8)(image, None, text), expected)
    torch.testing.assert_close(linear(image, text, 0.8), expected)
    assert not Composition(dac=False).log_kappa.requires_grad


def test_unknown_alpha_form_is_refused():
    with pytest.raises(ValueError, match="cube"):
        Composition(alpha_form="cube")

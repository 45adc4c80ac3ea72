"""DAC: slerp against a float64 reference, equations 14 to 16 from numbers written out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.diffcomp.composition import ANTIPODAL, Composition, linear, slerp


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


BY_HAND = {  # two super-patches and the text in a plane: angles in radians
    "image": 0.0,
    "parts": (0.2, 0.9),
    "text": 1.2,
}


def on_circle(angle):
    return torch.tensor([np.cos(angle), np.sin(angle), 0.0], dtype=torch.float64)


def plane():
    """f_Id [1, 3], f_j [1, 2, 3] and f_T [1, 3] of `BY_HAND`."""
    parts = torch.stack([on_circle(angle) for angle in BY_HAND["parts"]])
    return on_circle(BY_HAND["image"])[None], parts[None], on_circle(BY_HAND["text"])[None]


def lambdas(base, kept=(True, True)):
    """Equation (14) from the angles between parts and text: sim = cos(1.0) and cos(0.3)."""
    sims = [np.cos(1.2 - 0.2), np.cos(1.2 - 0.9)]
    largest = max(np.exp(sim) for sim, own in zip(sims, kept, strict=True) if own)
    return [base * max(0.0, 1 - np.exp(sim) / largest) for sim in sims]


def test_equation_14_by_hand():
    # e^0.540302 = 1.716526, e^0.955336 = 2.599545: lambda_1 = 0.8 (1 - 0.660318) = 0.271745
    _, parts, text = plane()
    found = Composition(True, 0.8, 0.4).weights(parts, text)[0].tolist()
    assert found == pytest.approx([0.271745, 0.0], abs=1e-6) and found == pytest.approx(lambdas(0.8))


def test_equations_15_and_16_by_hand():
    """Moving towards the text by a share of the angle, then phi of the mean and 1 - phi of the global part."""
    image, parts, text = plane()
    first, second = lambdas(0.8)
    moved = [0.2 + first * (1.2 - 0.2), 0.9 + second * (1.2 - 0.9)]  # angles
    whole = 0.8 * 1.2
    expected = np.zeros(2)
    for angle, weight in ((moved[0], 0.2), (moved[1], 0.2), (whole, 0.6)):
        expected += weight * np.array([np.cos(angle), np.sin(angle)])
    expected /= np.linalg.norm(expected)
    found = Composition(True, 0.8, 0.4)(image, parts, text)[0]
    np.testing.assert_allclose(found.numpy(), [*expected, 0.0], atol=1e-7)


def test_only_retained_super_patches_count():
    image, parts, text = plane()
    module, retained = Composition(True, 0.8, 0.4), torch.tensor([[1.0, 0.0]])
    # the first alone: its own maximum, so lambda = 0 and it stays where it is
    assert module.weights(parts, text, retained)[0].tolist() == pytest.approx([0.0, 0.0])
    expected = 0.4 * on_circle(0.2) + 0.6 * on_circle(0.8 * 1.2)
    torch.testing.assert_close(module(image, parts, text, retained)[0], expected / expected.norm(), atol=1e-7, rtol=0)
    np.testing.assert_allclose(module.weights(parts, text, 1 - retained)[0], lambdas(0.8, (False, True)), atol=1e-12)


@pytest.mark.parametrize("phi", [0.4, 1.0])
def test_where_nothing_is_retained_the_global_part_is_left(phi):
    image, parts, text = plane()
    parts = parts.requires_grad_()
    retained = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    composed = Composition(True, 0.8, phi)(image, parts, text, retained)
    torch.testing.assert_close(composed[0], on_circle(0.8 * 1.2), atol=1e-7, rtol=0)
    composed.sum().backward()
    assert retained.grad.isfinite().all() and parts.grad.isfinite().all()


def test_local_parts_stay_visual_where_cosines_lie_close():
    """Cosines within 0.2 of each other keep lambda_j below 0.8 (1 - e^-0.2) = 0.145."""
    text = units(1, 16, seed=1, dtype=torch.float64)
    side = units(1, 9, 16, seed=2, dtype=torch.float64)
    side = torch.nn.functional.normalize(side - (side * text[:, None]).sum(-1, keepdim=True) * text[:, None], dim=-1)
    cos = torch.linspace(0.1, 0.3, 9, dtype=torch.float64)[None, :, None]
    found = Composition(True, 0.8, 0.4).weights(cos * text[:, None] + (1 - cos**2).sqrt() * side, text)
    assert found.max().item() == pytest.approx(0.8 * (1 - np.exp(-0.2)), abs=1e-9) and found.max() < 0.1451


def test_gradients_of_the_composition_against_finite_differences():
    image, parts, text = (values.requires_grad_() for values in plane())
    retained = torch.tensor([[0.7, 0.9]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Composition(True, 0.8, 0.4), (image, parts, text, retained), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("dac", [True, False])
@pytest.mark.parametrize("base, end", [(0.0, "image"), (1.0, "text")])
def test_the_ends_of_lambda_base(base, end, dac):
    vectors = {"image": units(3, 8), "text": units(3, 8, seed=1)}
    composed = Composition(dac, base, phi=0.0)(vectors["image"], units(3, 4, 8, seed=2), vectors["text"])
    torch.testing.assert_close(composed, vectors[end], atol=1e-5, rtol=0)


def test_a_query_has_its_own_weight_in_evaluation_mode():
    module = Composition(False, 0.8, 0.4, lambda_query=0.3)
    image, text = units(3, 8), units(3, 8, seed=1)
    torch.testing.assert_close(module(image, None, text), linear(image, text, 0.8))
    torch.testing.assert_close(module.eval()(image, None, text), linear(image, text, 0.3))


def test_without_dac_it_is_one_linear_interpolation():
    image, text = units(3, 8), units(3, 8, seed=1)
    expected = torch.nn.functional.normalize(0.2 * image + 0.8 * text, dim=-1)
    torch.testing.assert_close(Composition(False, 0.8, 0.4)(image, None, text), expected)
    with pytest.raises(ValueError, match="super-patch"):
        Composition(True, 0.8, 0.4)(image, None, text)

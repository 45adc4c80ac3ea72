"""Jumps against the closed form of a Gaussian: its ODE, its denoiser and their guidance are known."""

import pytest
import torch

from pipeline.config import DiffusionParams
from pipeline.distill import Jumps
from pipeline.distill.jumps import CLEAN
from pipeline.fusion_diff import Diffusion
from pipeline.fusion_diff.sampler import guide, walk
from pipeline.gpu.graphs import solver_weights
from tests.sections import section

DIM, SPREAD, GAMMA = 6, 0.6, 2.5


@pytest.fixture(autouse=True)
def means():
    """Of the clean samples with a text and without: both Gaussians have the same spread, so guidance moves the mean."""
    torch.manual_seed(0)
    return torch.randn(DIM), torch.randn(DIM)


def process(steps=14, **changes):
    return Jumps(Diffusion(section(DiffusionParams, prediction="sample", **changes), DIM), steps)


def denoised(noisy, mean, alpha, sigma):
    """E[x | z] for x of N(mean, SPREAD^2)."""
    return mean + alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2) * (noisy - alpha * mean)


def moved(noisy, mean, start, end, points):
    """The exact flow of the ODE between two points."""
    spread = [(points.alpha[i] ** 2 * SPREAD**2 + points.sigma[i] ** 2).sqrt() for i in (start, end)]
    return points.alpha[end] * mean + spread[1] / spread[0] * (noisy - points.alpha[start] * mean)


@pytest.mark.parametrize(("passes", "bound"), [(1, 2e-2), (2, 2e-2)])
def test_jumps_learn_the_exact_flow_of_a_guided_gaussian(means, passes, bound):
    """The teacher's solver takes 500 steps, and so comes near to the exact flow."""
    diffusion = Diffusion(section(DiffusionParams, prediction="sample"), DIM)
    jumps = Jumps(diffusion, 500)
    noise = torch.randn(8, DIM)
    alpha, sigma = jumps.points.alpha, jumps.points.sigma

    def teacher(noisy, index, step):
        conditional, unconditional = (denoised(noisy, mean, alpha[index], sigma[index]) for mean in means)
        return guide(conditional, unconditional, GAMMA)

    walked = list(walk(teacher, noise, diffusion, 500))
    mean = (1 + GAMMA) * means[0] - GAMMA * means[1]
    sample = noise
    for start, end in jumps.pairs(passes):
        learned = jumps.mean(walked[start], walked[end], start, end)
        sample = jumps.jump(sample, learned, start, end)
        exact = moved(walked[start], mean, start, end, jumps.points)
        assert (sample - exact).norm() / exact.norm() < bound


def test_points_are_those_of_the_schedule():
    points = process().points
    assert points.timesteps[0] == 999 and points.timesteps[-1] == CLEAN and len(points.timesteps) == 15
    expected = process().alphas_cumprod[points.timesteps[:-1]]
    torch.testing.assert_close(points.alpha[:-1] ** 2, expected)
    torch.testing.assert_close(points.alpha**2 + points.sigma**2, torch.ones(15))
    assert points.sigma[-1] == 0


def test_the_mean_undoes_the_jump(jumps):
    noisy, mean = torch.randn(2, 5, jumps.dim)
    for start, end in ((0, 14), (0, 7), (7, 14), (3, 4)):
        found = jumps.mean(noisy, jumps.jump(noisy, mean, start, end), start, end)
        torch.testing.assert_close(found, mean, atol=1e-4, rtol=1e-4)


def test_a_velocity_says_the_clean_sample(jumps):
    """Of z = alpha x + sigma eps; against `diffusers`' own velocity."""
    clean, noise = torch.randn(2, 5, jumps.dim)
    index = 6
    step = jumps.points.timesteps[index].expand(5)
    noisy = jumps.noise(jumps.unscale(clean), step, noise)
    said = clean
    if jumps.params.prediction != "sample":
        said = jumps._scheduler.get_velocity(clean, noise, step)
    torch.testing.assert_close(jumps.clean(said, noisy, index), clean, atol=1e-4, rtol=1e-4)


def test_the_solver_is_the_jumps_and_linear(jumps):
    """So that the quick sampler records it as it does any solver."""
    noise, said = torch.randn(5, jumps.dim), torch.randn(2, 5, jumps.dim)
    middle = jumps.jump(noise, jumps.clean(said[0], noise, 0), 0, 7)
    end = jumps.jump(middle, jumps.clean(said[1], middle, 7), 7, 14)
    weights = solver_weights(jumps, 2)
    found = torch.einsum("n,nbd->bd", weights[-1], torch.cat([noise[None], said]))
    torch.testing.assert_close(found, end, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("passes", [0, 15])
def test_more_passes_than_steps(passes):
    with pytest.raises(ValueError, match=f"{passes} passes are not between 1 and 14"):
        process().stops(passes)

import math

import pytest
import torch

from pipeline.config import DiffusionParams, ParameterError
from pipeline.fusion_diff import Diffusion
from tests.sections import section


@pytest.mark.parametrize("scaled", [True, False])
def test_equation_2_by_hand(scaled):
    diffusion = Diffusion(section(DiffusionParams, scale_by_sqrt_dim=scaled), 16)
    betas = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    alpha_bar = torch.cumprod(1 - betas, 0)
    clean, noise, step = torch.randn(4, 16), torch.randn(4, 16), torch.tensor([0, 1, 500, 999])
    scale = 4.0 if scaled else 1.0
    expected = alpha_bar[step].sqrt()[:, None] * scale * clean + (1 - alpha_bar[step]).sqrt()[:, None] * noise
    torch.testing.assert_close(diffusion.noise(clean, step, noise).double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(diffusion.unscale(scale * clean), clean)


def test_scaled_unit_vectors_have_unit_variance():
    diffusion = Diffusion(section(DiffusionParams), 1024)
    clean = torch.nn.functional.normalize(torch.randn(64, 1024), dim=1)
    first = diffusion.noise(clean, torch.zeros(64, dtype=torch.long), torch.zeros(64, 1024))
    assert first.std().item() == pytest.approx(1.0, abs=0.01)


def test_loss_is_the_mean_squared_error(diffusion):
    predicted, noise = torch.randn(3, 24), torch.randn(3, 24)
    assert diffusion.loss(predicted, noise).item() == pytest.approx(
        ((predicted - noise) ** 2).sum(1).mean().item() / 24, rel=1e-5
    )


def test_draws_depend_on_the_generator_alone(diffusion):
    first, second = (diffusion.draw(2000, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert first[0].min() >= 0 and first[0].max() <= 999 and abs(first[0].float().mean() - 499.5) < 30


def test_impossible_numbers_are_refused():
    with pytest.raises(ValueError, match="betas from 0.5 to 0.1"):
        Diffusion(section(DiffusionParams, beta_start=0.5, beta_end=0.1), 4)
    with pytest.raises(ParameterError, match="train_steps: 0 is not at least 1"):
        Diffusion(section(DiffusionParams, train_steps=0), 4)
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=f"{steps} solver steps"):
            Diffusion(section(DiffusionParams), 4).solver(steps)


def test_the_solver_is_the_papers():
    solver = Diffusion(section(DiffusionParams), 4).solver(14)
    assert solver.config.algorithm_type == "dpmsolver++" and solver.config.solver_order == 2
    assert len(solver.timesteps) == 14 and solver.timesteps[0] == 999
    assert math.isclose(solver.config.beta_end, 2e-2)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_targets_by_hand_and_their_solver(prediction):
    """One point: its target as the paper and Salimans and Ho (2022) define it. From it the solver finds the point."""
    diffusion = Diffusion(section(DiffusionParams, prediction=prediction), 16)
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(4, 16, generator=generator)
    scaled = 4.0 * clean  # sqrt(16)

    def by_hand(kept, noise):
        return {"epsilon": noise, "sample": scaled, "v_prediction": kept.sqrt() * noise - (1 - kept).sqrt() * scaled}[
            prediction
        ]

    step, noise = diffusion.draw(4, generator)
    torch.testing.assert_close(
        diffusion.target(clean, step, noise), by_hand(diffusion.alphas_cumprod[step].unsqueeze(1), noise)
    )
    solver, sample = diffusion.solver(14), torch.randn(4, 16, generator=generator)
    for step in solver.timesteps:
        kept = diffusion.alphas_cumprod[step]
        noise = (sample - kept.sqrt() * scaled) / (1 - kept).sqrt()
        sample = solver.step(by_hand(kept, noise), step, sample, return_dict=False)[0]
    torch.testing.assert_close(diffusion.unscale(sample), clean, atol=1e-3, rtol=1e-3)

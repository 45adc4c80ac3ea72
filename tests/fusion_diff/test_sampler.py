import pytest
import torch

from pipeline.fusion_diff import ControlledPrior, ReferenceSampler, Sampler, SamplerSettings
from pipeline.fusion_diff.sampler import guide, query_noise, solve

IDS = ["a", "b", "c", "d", "e"]


@pytest.fixture
def queries(inputs):
    """Text states [5, T, text_dim] with their mask [5, T], and control [5, d]."""
    return inputs[2:4], inputs[4]


@pytest.mark.parametrize("with_adapter", [True, False])
@pytest.mark.parametrize("guidance_scale", [2.5, 0.0])
@pytest.mark.parametrize("hypotheses", [1, 3])
def test_what_is_kept_between_steps_changes_nothing(make_sampler, queries, with_adapter, guidance_scale, hypotheses):
    found, expected = (
        make_sampler(6, guidance_scale, 0.7, kind=kind, with_adapter=with_adapter).sample(
            IDS, *queries, hypotheses=hypotheses, seed=1
        )
        for kind in (Sampler, ReferenceSampler)
    )
    assert found.shape == (5, hypotheses, 24) and found.dtype == torch.float32
    assert (found - expected).norm() / expected.norm() < 1e-5
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(5, hypotheses))


def test_inputs_steer_the_sample(prior, adapter, diffusion, queries):
    (states, mask), control = queries
    sampler = Sampler(prior, adapter, diffusion, SamplerSettings(4))
    base = sampler.sample(IDS, (states, mask), control)
    others = [
        sampler.sample(IDS, (states + 1, mask), control),
        sampler.sample(IDS, (states, mask), control + 1),
        sampler.sample(IDS, (states, mask), control, seed=1),
        Sampler(prior, None, diffusion, SamplerSettings(4)).sample(IDS, (states, mask)),
        Sampler(prior, adapter, diffusion, SamplerSettings(4, control_scale=0.5)).sample(IDS, (states, mask), control),
        Sampler(prior, adapter, diffusion, SamplerSettings(4, guidance_scale=1.0)).sample(IDS, (states, mask), control),
    ]
    assert all((base - other).abs().max() > 1e-3 for other in others)


def test_zero_control_scale_is_the_prior_alone(prior, adapter, diffusion, queries):
    off = Sampler(prior, adapter, diffusion, SamplerSettings(4, control_scale=0.0)).sample(IDS, *queries)
    assert torch.equal(off, Sampler(prior, None, diffusion, SamplerSettings(4)).sample(IDS, *queries))


def test_results_do_not_depend_on_batch_size_order_or_padding(prior, adapter, diffusion, queries):
    (states, mask), control = queries
    sampler = Sampler(prior, adapter, diffusion, SamplerSettings(6))
    together = sampler.sample(IDS, (states, mask), control, hypotheses=2, seed=5)
    for row in range(5):
        one = slice(row, row + 1)
        length = int(mask[row].sum())
        alone = sampler.sample(IDS[one], (states[one, :length], mask[one, :length]), control[one], hypotheses=2, seed=5)
        torch.testing.assert_close(together[one], alone, rtol=1e-4, atol=1e-5)
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = sampler.sample(
        [IDS[i] for i in order], (states[order], mask[order]), control[order], hypotheses=2, seed=5
    )
    torch.testing.assert_close(shuffled, together[order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        sampler.sample(IDS, (states, mask), control, hypotheses=1, seed=5), together[:, :1], rtol=1e-4, atol=1e-5
    )
    assert torch.equal(together, sampler.sample(IDS, (states, mask), control, hypotheses=2, seed=5))


def test_noise_belongs_to_seed_query_and_hypothesis():
    noise = query_noise(["a", "b"], 2, 8, seed=0)
    assert torch.equal(noise[1:], query_noise(["b"], 2, 8, seed=0))
    assert torch.equal(noise[:, :1], query_noise(["a", "b"], 1, 8, seed=0))
    drawn = torch.cat([noise.flatten(0, 1), query_noise(["a", "b"], 2, 8, seed=1).flatten(0, 1)])
    assert torch.unique(drawn, dim=0).shape[0] == 8
    many = query_noise([str(i) for i in range(500)], 1, 64, seed=0)
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02


def test_noise_stays_the_same_between_versions():
    assert query_noise(["query"], 1, 4, seed=7)[0, 0].tolist() == pytest.approx(
        [1.5109, 2.1103, -1.4714, 0.5159], abs=1e-4
    )


def test_equation_4_by_hand():
    conditional, unconditional = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 3.0]])
    assert guide(conditional, unconditional, 2.5).tolist() == [[4.5, -4.0]]
    assert torch.equal(guide(conditional, unconditional, 0.0), conditional)


def test_the_unconditional_branch_has_no_text_and_no_control(prior, adapter, diffusion, queries):
    """One step from z_N, by hand from the prior's own predictions."""
    (states, mask), control = queries
    noise = query_noise(IDS, 1, 24, seed=0)[:, 0]
    step = torch.full((5,), 999)
    with torch.no_grad():
        conditional = ControlledPrior(prior, adapter, 0.8)(noise, step, states, mask, control * 24**0.5)
        epsilon = 3.5 * conditional - 2.5 * prior(noise, step)
    alpha_bar = diffusion.alphas_cumprod[999]
    clean = (noise - (1 - alpha_bar).sqrt() * epsilon) / alpha_bar.sqrt()
    sampled = Sampler(prior, adapter, diffusion, SamplerSettings(1, 2.5, 0.8)).sample(IDS, (states, mask), control)
    torch.testing.assert_close(sampled[:, 0], torch.nn.functional.normalize(clean, dim=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("steps", "tolerance"), [(14, 0.05), (100, 0.01)])
def test_the_solver_recovers_a_gaussian(diffusion, steps, tolerance):
    """For z_0 ~ N(mu, s^2 I) the best noise prediction has a closed form."""
    mean, spread = torch.linspace(-2, 2, 24), 0.5

    def denoise(noisy, index, step):
        alpha_bar = diffusion.alphas_cumprod[step]
        variance = alpha_bar * spread**2 + 1 - alpha_bar
        return (1 - alpha_bar).sqrt() * (noisy - alpha_bar.sqrt() * mean) / variance

    noise = torch.randn(20_000, 24)
    clean = solve(denoise, noise, diffusion, steps)
    torch.testing.assert_close(clean.mean(0), mean, rtol=0, atol=tolerance)
    assert clean.std(0).mean().item() == pytest.approx(spread, rel=5 * tolerance)


def test_more_steps_come_closer(diffusion):
    """The error of the deterministic map to the exact flow falls as the steps grow."""
    spread = 0.5

    def denoise(noisy, index, step):
        alpha_bar = diffusion.alphas_cumprod[step]
        return (1 - alpha_bar).sqrt() * noisy / (alpha_bar * spread**2 + 1 - alpha_bar)

    noise = torch.randn(50, 24)
    errors = [(solve(denoise, noise, diffusion, steps) - spread * noise).norm().item() for steps in (7, 14, 56)]
    assert errors[0] > errors[1] > errors[2]


def test_bad_queries_are_named(prior, adapter, diffusion, queries):
    (states, mask), control = queries
    sampler = Sampler(prior, adapter, diffusion, SamplerSettings(2))
    with pytest.raises(ValueError, match="query c has no text tokens"):
        sampler.sample(IDS, (states, mask & (torch.arange(5) != 2)[:, None]), control)
    bad = states.clone()
    bad[1, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="query b has a text state that is not finite"):
        sampler.sample(IDS, (bad, mask), control)
    bad = control.clone()
    bad[4, 0] = float("inf")
    with pytest.raises(ValueError, match=r"row 4 \(e\) has a number that is not finite"):
        sampler.sample(IDS, (states, mask), bad)
    with pytest.raises(ValueError, match=r"\(5, 23\), expected \[N, 24\]"):
        sampler.sample(IDS, (states, mask), control[:, 1:])
    with pytest.raises(ValueError, match="4 control vectors for 5 queries"):
        sampler.sample(IDS, (states, mask), control[1:])
    with pytest.raises(ValueError, match="needs control vectors"):
        sampler.sample(IDS, (states, mask))
    with pytest.raises(ValueError, match="4 ids"):
        sampler.sample(IDS[1:], (states, mask), control)
    with pytest.raises(ValueError, match="0 hypotheses"):
        sampler.sample(IDS, (states, mask), control, hypotheses=0)
    with pytest.raises(ValueError, match=r"a mask of torch\.int64, expected 12 and torch\.bool"):
        sampler.sample(IDS, (states, mask.long()), control)
    with pytest.raises(ValueError, match="negative text states of 11 numbers"):
        sampler.sample(IDS, (states, mask), control, negative=(states[..., 1:], mask))


def test_no_queries_have_no_samples(prior, adapter, diffusion, queries):
    (states, mask), control = queries
    for kind in (Sampler, ReferenceSampler):
        drawn = kind(prior, adapter, diffusion, SamplerSettings(2)).sample([], (states[:0], mask[:0]), control[:0], 3)
        assert drawn.shape == (0, 3, 24)


@pytest.mark.parametrize("name", ["guidance_scale", "control_scale", "temperature"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_settings_are_finite(name, value):
    with pytest.raises(ValueError, match=f"sampler: {name} {value} is not finite"):
        SamplerSettings(**{name: value})


def test_a_mask_of_none_hides_nothing(make_sampler, queries):
    (states, mask), control = queries
    sampler = make_sampler(2)
    whole = sampler.sample(IDS, (states, torch.ones_like(mask)), control)
    assert torch.equal(sampler.sample(IDS, (states, None), control), whole)


def test_padding_may_hold_anything(prior, adapter, diffusion, queries):
    (states, mask), control = queries
    sampler = Sampler(prior, adapter, diffusion, SamplerSettings(2))
    other = states.masked_fill(~mask[..., None], float("nan"))
    torch.testing.assert_close(
        sampler.sample(IDS, (other, mask), control), sampler.sample(IDS, (states, mask), control)
    )


def test_bad_settings_are_refused(prior, adapter, diffusion):
    with pytest.raises(ValueError, match="0 solver steps"):
        Sampler(prior, adapter, diffusion, SamplerSettings(0))
    with pytest.raises(ValueError, match="guidance_scale -1.0"):
        Sampler(prior, adapter, diffusion, SamplerSettings(guidance_scale=-1.0))


def test_temperature_scales_the_starting_noise(prior, adapter, diffusion, queries):
    def sample(hypotheses=2, **settings):
        return Sampler(prior, adapter, diffusion, SamplerSettings(4, **settings)).sample(
            IDS, *queries, hypotheses=hypotheses
        )

    plain, still = sample(), sample(temperature=0.0)
    assert torch.equal(sample(temperature=1.0), plain)
    assert (plain[:, 0] - plain[:, 1]).abs().max() > 1e-3
    torch.testing.assert_close(still[:, 0], still[:, 1])
    scaled = Sampler(prior, adapter, diffusion, SamplerSettings(4, temperature=0.5)).scaled(control_scale=1.0)
    assert torch.equal(scaled.sample(IDS, *queries, hypotheses=2), sample(temperature=0.5))
    with pytest.raises(ValueError, match="temperature -1"):
        sample(temperature=-1.0)

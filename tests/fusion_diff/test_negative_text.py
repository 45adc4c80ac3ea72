"""A negative text in the null text's place."""

import pytest
import torch

from pipeline.fusion_diff import ControlledPrior, ReferenceSampler, Sampler, SamplerSettings
from pipeline.fusion_diff.sampler import query_noise

IDS = ["a", "b", "c", "d", "e"]


@pytest.fixture
def queries(inputs):
    return inputs[2:4], inputs[4]


@pytest.fixture
def negative():
    """Longer than the texts, and ragged."""
    mask = torch.arange(6) < torch.tensor([6, 1, 3, 2, 5])[:, None]
    return torch.randn(5, 6, 12), mask


@pytest.mark.parametrize("with_adapter", [True, False])
@pytest.mark.parametrize("hypotheses", [1, 3])
def test_what_is_kept_between_steps_changes_nothing(make_sampler, queries, negative, with_adapter, hypotheses):
    found, expected = (
        make_sampler(6, 2.5, 0.7, kind=kind, with_adapter=with_adapter).sample(
            IDS, *queries, hypotheses=hypotheses, seed=1, negative=negative
        )
        for kind in (Sampler, ReferenceSampler)
    )
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_it_stands_in_the_unconditional_branch_alone(prior, adapter, diffusion, queries, negative):
    """One step from z_N, by hand: the negative text in the unconditional branch, the control in the other one."""
    (states, mask), control = queries
    noise, step = query_noise(IDS, 1, 24, seed=0)[:, 0], torch.full((5,), 999)
    with torch.no_grad():
        conditional = ControlledPrior(prior, adapter, 0.8)(noise, step, states, mask, control * 24**0.5)
        epsilon = 3.5 * conditional - 2.5 * prior(noise, step, *negative)
    alpha_bar = diffusion.alphas_cumprod[999]
    clean = (noise - (1 - alpha_bar).sqrt() * epsilon) / alpha_bar.sqrt()
    sampled = Sampler(prior, adapter, diffusion, SamplerSettings(1, 2.5, 0.8)).sample(
        IDS, (states, mask), control, negative=negative
    )
    torch.testing.assert_close(sampled[:, 0], torch.nn.functional.normalize(clean, dim=1), rtol=1e-4, atol=1e-4)


def test_the_null_text_as_negative_text_changes_nothing(prior, adapter, diffusion, queries):
    (states, mask), control = queries
    null = prior.null_text.detach().expand(5, -1, -1)
    sampler = Sampler(prior, adapter, diffusion, SamplerSettings(4))
    without, within = (
        sampler.sample(IDS, (states, mask), control, negative=negative)
        for negative in (None, (null, torch.ones(5, null.shape[1], dtype=torch.bool)))
    )
    torch.testing.assert_close(within, without, rtol=1e-4, atol=1e-5)


def test_other_scales_are_those_of_a_sampler_built_with_them(prior, adapter, diffusion, queries):
    off = Sampler(prior, adapter, diffusion, SamplerSettings(4, guidance_scale=1.0, control_scale=0.0))
    again = off.scaled(2.0, 0.5).sample(IDS, *queries)
    assert torch.equal(again, Sampler(prior, adapter, diffusion, SamplerSettings(4, 2.0, 0.5)).sample(IDS, *queries))
    assert torch.equal(off.scaled().sample(IDS, *queries), off.sample(IDS, *queries))


def test_what_cannot_be_used_is_named(prior, adapter, diffusion, queries, negative):
    states, mask = negative
    with pytest.raises(ValueError, match="needs a guidance_scale above 0"):
        Sampler(prior, adapter, diffusion, SamplerSettings(2, guidance_scale=0.0)).sample(
            IDS, *queries, negative=negative
        )
    sampler = Sampler(prior, adapter, diffusion, SamplerSettings(2))
    with pytest.raises(ValueError, match="query b has no negative text tokens"):
        sampler.sample(IDS, *queries, negative=(states, mask & (torch.arange(5) != 1)[:, None]))
    with pytest.raises(ValueError, match="5 ids, negative text states"):
        sampler.sample(IDS, *queries, negative=(states[1:], mask[1:]))

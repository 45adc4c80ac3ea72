"""`Sampler(fast=True)`: the solver as weights, fixed sizes, and the same targets as the plain path."""

import copy

import pytest
import torch
import torch.nn.functional as F

from pipeline.config import DiffusionParams
from pipeline.fusion_diff import ControlAdapter, Diffusion, Prior, PriorSizes, Sampler, SamplerSettings
from pipeline.fusion_diff.sampler import solve
from pipeline.gpu.graphs import SIZES, solver_weights

IDS = [str(number) for number in range(70)]
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def make_queries(sizes, rows, longest=6):
    """text states [rows, T, text_dim], mask, control [rows, d], of lengths 1 to T."""
    lengths = torch.arange(rows) % longest + 1
    return (
        torch.randn(rows, longest, sizes.text_dim),
        torch.arange(longest) < lengths[:, None],
        torch.randn(rows, sizes.dim),
    )


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [1, 2, 14])
def test_the_weights_are_the_solver(prediction, steps):
    """Against `diffusers`' solver, with a denoiser that is anything but linear."""
    diffusion = Diffusion(DiffusionParams(prediction=prediction), 16)
    noise = torch.randn(5, 16)

    def denoise(noisy, index, step):
        return torch.tanh(noisy * (1 + index)) + 0.1 * step / 1000

    seen = [noise]
    weights = solver_weights(diffusion, steps)
    for index, step in enumerate(diffusion.solver(steps).timesteps):
        sample = sum(weight * part for weight, part in zip(weights[index], seen, strict=False))
        seen.append(denoise(sample, index, int(step)))
    found, expected = torch.einsum("n,nbd->bd", weights[-1], torch.stack(seen)), solve(denoise, noise, diffusion, steps)
    assert (found - expected).norm() / expected.norm() < 2e-5
    assert torch.equal(weights, weights.tril())  # nothing is used before it is there


@pytest.mark.parametrize("with_adapter", [True, False])
@pytest.mark.parametrize("guidance_scale", [2.5, 0.0])
@pytest.mark.parametrize(("rows", "hypotheses"), [(1, 1), (5, 1), (3, 2), (33, 2)])
def test_fast_equals_plain(prior, adapter, diffusion, sizes, with_adapter, guidance_scale, rows, hypotheses):
    sampler = Sampler(
        prior,
        adapter if with_adapter else None,
        diffusion,
        SamplerSettings(6, guidance_scale, control_scale=0.7),
        fast=True,
    )
    queries = make_queries(sizes, rows)
    fast, plain = (
        sampler.sample(IDS[:rows], *queries, hypotheses=hypotheses, seed=1, cached=cached) for cached in (True, False)
    )
    assert fast.shape == (rows, hypotheses, sizes.dim)
    assert (fast - plain).norm() / plain.norm() < 1e-5


@pytest.mark.parametrize(("share", "guided"), [(0.5, 3), (0.51, 4), (1e-9, 1), (1.0, 6)])
@pytest.mark.parametrize("with_negative", [True, False])
def test_guidance_on_the_first_steps_alone(prior, adapter, diffusion, sizes, share, guided, with_negative, monkeypatch):
    """Fast, cached and plain agree; as many steps as said take two rows a sample, the first ones."""
    queries = make_queries(sizes, 3)
    negative = make_queries(sizes, 3)[:2] if with_negative else None
    samplers = [
        Sampler(prior, adapter, diffusion, SamplerSettings(6, 2.5, 0.7, guided_share=share), fast=fast)
        for fast in (True, False)
    ]
    plain = samplers[1].sample(IDS[:3], *queries, hypotheses=2, cached=False, negative=negative)
    rows, denoise = [], prior.output
    monkeypatch.setattr(
        prior, "output", lambda hidden, modulation: rows.append(len(hidden)) or denoise(hidden, modulation)
    )
    for sampler in samplers:
        rows.clear()
        drawn = sampler.sample(IDS[:3], *queries, hypotheses=2, negative=negative)
        assert (drawn - plain).norm() / plain.norm() < 1e-5
        size = 8 if sampler is samplers[0] and not with_negative else 6  # `fast` pads to a fixed size
        assert (
            rows == [2 * size] * guided + [size] * (6 - guided) and sampler.scaled(1.0).settings.guided_share == share
        )
    whole = Sampler(prior, adapter, diffusion, SamplerSettings(6, 2.5, 0.7)).sample(
        IDS[:3], *queries, hypotheses=2, negative=negative
    )
    assert torch.equal(whole, drawn) == (share == 1.0)
    with pytest.raises(ValueError, match="guided_share 0.0"):
        Sampler(prior, adapter, diffusion, SamplerSettings(6, guided_share=0.0))


def test_a_query_alone_equals_the_same_among_32(prior, adapter, diffusion, sizes):
    sampler = Sampler(prior, adapter, diffusion, SamplerSettings(6), fast=True)
    states, mask, control = make_queries(sizes, 32)
    together = sampler.sample(IDS[:32], states, mask, control)
    for row in (0, 5, 31):
        one = slice(row, row + 1)
        alone = sampler.sample(IDS[one], states[one], mask[one], control[one])
        assert (alone[0] - together[row]).norm() < 1e-5


def test_other_scales_and_negative_texts_work_beside_it(prior, adapter, diffusion, sizes):
    queries = make_queries(sizes, 3)
    fast, plain = (Sampler(prior, adapter, diffusion, SamplerSettings(4), fast=fast) for fast in (True, False))
    assert fast.scaled() is fast
    for scales in ({"guidance_scale": 1.0}, {"control_scale": 0.3}):
        torch.testing.assert_close(
            fast.scaled(**scales).sample(IDS[:3], *queries), plain.scaled(**scales).sample(IDS[:3], *queries)
        )
    negative = make_queries(sizes, 3)[:2]
    torch.testing.assert_close(
        fast.sample(IDS[:3], *queries, negative=negative), plain.sample(IDS[:3], *queries, negative=negative)
    )


def test_stacked_projections_are_the_layers(prior, sizes):
    attention = prior.blocks[0].body.self_attention
    tokens = torch.randn(2, 5, sizes.width)
    apart = [layer(tokens) for layer in (attention.query, attention.key, attention.value)]
    attention.stack()
    for one, other in zip(attention.project(tokens), apart, strict=True):
        torch.testing.assert_close(one, other)
    assert attention.state_dict().keys() == {
        f"{name}.{kind}" for name in ("query", "key", "value", "out") for kind in ("weight", "bias")
    }
    torch.nn.init.zeros_(attention.train().query.weight)  # training again forgets the stack
    assert torch.equal(attention.project(tokens)[0], attention.query.bias.expand(2, 5, -1))


@gpu
@pytest.mark.parametrize("rows", [1, 5, SIZES[-1] + 1])
def test_on_a_gpu_graphs_give_what_the_plain_path_gives(randomise, rows):
    """fp32 within 1e-5; bfloat16 at a cosine of 0.999 with fp32; a replay repeats itself."""
    torch.backends.cuda.matmul.allow_tf32 = False
    sizes = PriorSizes(
        dim=256,
        channels=4,
        grid=16,
        patch_size=2,
        width=288,
        heads=4,
        depth=6,
        ffn_ratio=4,
        time_frequencies=64,
        text_dim=128,
        text_tokens=60,
    )
    prior = randomise(Prior(sizes), 0.03).eval().cuda()
    adapter = randomise(ControlAdapter(prior), 0.03).eval().cuda()
    diffusion = Diffusion(DiffusionParams(), sizes.dim)
    queries = make_queries(sizes, rows, longest=50)
    plain = Sampler(copy.deepcopy(prior), copy.deepcopy(adapter), diffusion, SamplerSettings()).sample(
        IDS[:rows], *queries, cached=False
    )
    fast = Sampler(copy.deepcopy(prior), copy.deepcopy(adapter), diffusion, SamplerSettings(), fast=True)
    first = fast.sample(IDS[:rows], *queries)
    assert (first - plain).norm() / plain.norm() < 1e-5
    other = fast.sample(IDS[rows : 2 * rows], *make_queries(sizes, rows, longest=50))
    assert (other - first).norm() > 0.1 and torch.equal(fast.sample(IDS[:rows], *queries), first)
    half = Sampler(prior.bfloat16(), adapter.bfloat16(), diffusion, SamplerSettings(), fast=True).sample(
        IDS[:rows], *queries
    )
    assert F.cosine_similarity(half, plain, dim=-1).min() > 0.999

"""`FastSampler`: the solver as weights, fixed sizes, and the same targets as the plain sampler."""

import copy

import pytest
import torch
import torch.nn.functional as F

from pipeline.config import DiffusionParams, Speed
from pipeline.fusion_diff import (
    ControlAdapter,
    Diffusion,
    Prior,
    PriorSizes,
    ReferenceSampler,
    Sampler,
    SamplerSettings,
)
from pipeline.fusion_diff.sampler import solve
from pipeline.gpu import accelerate
from pipeline.gpu.graphs import SIZES, solver_weights
from tests.sections import section

IDS = [str(number) for number in range(70)]
FIXED = Speed(cuda_graph=True)
"""On a CPU: pieces of fixed sizes, without a graph."""
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def make_queries(sizes, rows, longest=6):
    """Text states [rows, T, text_dim] of lengths 1 to T with their mask, and control [rows, d]."""
    lengths = torch.arange(rows) % longest + 1
    text = torch.randn(rows, longest, sizes.text_dim), torch.arange(longest) < lengths[:, None]
    return text, torch.randn(rows, sizes.dim)


def part(queries, rows):
    (states, mask), control = queries
    return (states[rows], mask[rows]), control[rows]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [1, 2, 14])
def test_the_weights_are_the_solver(prediction, steps):
    """Against `diffusers`' solver, with a denoiser that is anything but linear."""
    diffusion = Diffusion(section(DiffusionParams, prediction=prediction), 16)
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
@pytest.mark.parametrize("size", [(1, 1), (5, 1), (3, 2), (33, 2)])
def test_fast_equals_plain(make_sampler, sizes, with_adapter, guidance_scale, size):
    rows, hypotheses = size
    queries, settings = make_queries(sizes, rows), (6, guidance_scale, 0.7)
    fast, plain = (
        sampler.sample(IDS[:rows], *queries, hypotheses=hypotheses, seed=1)
        for sampler in (
            accelerate(make_sampler(*settings, with_adapter=with_adapter), FIXED),
            make_sampler(*settings, kind=ReferenceSampler, with_adapter=with_adapter),
        )
    )
    assert fast.shape == (rows, hypotheses, sizes.dim)
    assert (fast - plain).norm() / plain.norm() < 1e-5


@pytest.mark.parametrize(("share", "guided"), [(0.5, 3), (0.51, 4), (1e-9, 1), (1.0, 6)])
@pytest.mark.parametrize("with_negative", [True, False])
def test_guidance_on_the_first_steps_alone(make_sampler, sizes, share, guided, with_negative, monkeypatch):
    """Fast, plain and reference agree; as many steps as said take two rows a sample, the first ones."""
    queries = make_queries(sizes, 3)
    options = {"hypotheses": 2, "negative": make_queries(sizes, 3)[0] if with_negative else None}
    plain = make_sampler(6, 2.5, 0.7, guided_share=share)
    fast = accelerate(make_sampler(6, 2.5, 0.7, guided_share=share), FIXED)
    reference = make_sampler(6, 2.5, 0.7, guided_share=share, kind=ReferenceSampler)
    expected = reference.sample(IDS[:3], *queries, **options)
    rows, output = [], plain.prior.output
    monkeypatch.setattr(
        plain.prior, "output", lambda hidden, modulation: rows.append(len(hidden)) or output(hidden, modulation)
    )
    for sampler in (fast, plain):
        rows.clear()
        drawn = sampler.sample(IDS[:3], *queries, **options)
        assert (drawn - expected).norm() / expected.norm() < 1e-5
        size = 8 if sampler is fast and not with_negative else 6  # padded to a fixed size
        assert rows == [2 * size] * guided + [size] * (6 - guided)
        assert sampler.scaled(1.0).settings.guided_share == share
    whole = make_sampler(6, 2.5, 0.7).sample(IDS[:3], *queries, **options)
    assert torch.equal(whole, drawn) == (share == 1.0)
    with pytest.raises(ValueError, match="guided_share 0.0"):
        SamplerSettings(6, guided_share=0.0)


def test_a_query_alone_equals_the_same_among_32(make_sampler, sizes):
    sampler, queries = accelerate(make_sampler(6), FIXED), make_queries(sizes, 32)
    together = sampler.sample(IDS[:32], *queries)
    for row in (0, 5, 31):
        one = slice(row, row + 1)
        alone = sampler.sample(IDS[one], *part(queries, one))
        assert (alone[0] - together[row]).norm() < 1e-5


def test_other_scales_and_negative_texts_work_beside_it(make_sampler, sizes):
    queries, plain, fast = make_queries(sizes, 3), make_sampler(4), accelerate(make_sampler(4), FIXED)
    assert fast.scaled() is fast
    for scales in ({"guidance_scale": 1.0}, {"control_scale": 0.3}):
        torch.testing.assert_close(
            fast.scaled(**scales).sample(IDS[:3], *queries), plain.scaled(**scales).sample(IDS[:3], *queries)
        )
    negative = make_queries(sizes, 3)[0]
    torch.testing.assert_close(
        fast.sample(IDS[:3], *queries, negative=negative), plain.sample(IDS[:3], *queries, negative=negative)
    )


def test_without_speed_a_sampler_stays_as_it_is(make_sampler):
    sampler = make_sampler(4)
    assert accelerate(sampler, Speed()) is sampler and not sampler.gains_from_batches


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
    diffusion, settings = Diffusion(section(DiffusionParams), sizes.dim), SamplerSettings()
    queries, speed = make_queries(sizes, rows, longest=50), Speed(fused=True, cuda_graph=True)
    plain = ReferenceSampler(prior, adapter, diffusion, settings).sample(IDS[:rows], *queries)
    fast = accelerate(Sampler(copy.deepcopy(prior), copy.deepcopy(adapter), diffusion, settings), speed)
    first = fast.sample(IDS[:rows], *queries)
    assert (first - plain).norm() / plain.norm() < 1e-5
    other = fast.sample(IDS[rows : 2 * rows], *make_queries(sizes, rows, longest=50))
    assert (other - first).norm() > 0.1 and torch.equal(fast.sample(IDS[:rows], *queries), first)
    half = accelerate(Sampler(prior.bfloat16(), adapter.bfloat16(), diffusion, settings), speed)
    assert F.cosine_similarity(half.sample(IDS[:rows], *queries), plain, dim=-1).min() > 0.999

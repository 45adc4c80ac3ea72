"""What only a GPU does: stacked projections, bfloat16, CUDA graphs, copies beside the work. Small, and skipped elsewhere."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F

from pipeline.config import DiffusionParams, OptimiserParams
from pipeline.fusion_diff import (
    ControlAdapter,
    ControlTask,
    Diffusion,
    Prior,
    PriorSizes,
    PriorTask,
    Sampler,
    SamplerSettings,
    TextConditions,
)
from pipeline.gpu.batcher import SamplingBatcher
from pipeline.runtime import make_deterministic
from pipeline.training import train

DEVICE = "cuda"
SIZES = PriorSizes(
    dim=128,
    channels=4,
    grid=8,
    patch_size=2,
    width=144,
    heads=2,
    depth=4,
    ffn_ratio=4,
    time_frequencies=64,
    text_dim=64,
    text_tokens=60,
)
"""Heads of 72 numbers, as the paper's."""
IDS = [str(number) for number in range(32)]
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture(autouse=True)
def _as_before():
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.fixture
def prior(randomise):
    return randomise(Prior(SIZES), 0.05).to(DEVICE).eval()


@pytest.fixture
def adapter(prior, randomise):
    return randomise(ControlAdapter(prior), 0.05).to(DEVICE).eval()


@pytest.fixture
def diffusion():
    return Diffusion(DiffusionParams(), SIZES.dim)


@pytest.fixture
def queries():
    """Of 32: token states of 1 to 40 tokens, their mask, control vectors."""
    lengths = 1 + torch.arange(32) * 39 // 31
    return (
        torch.randn(32, 40, SIZES.text_dim),
        torch.arange(40) < lengths[:, None],
        F.normalize(torch.randn(32, SIZES.dim), dim=1),
    )


@pytest.fixture(params=["whole", "ragged"])
def texts(request):
    """Of 24 examples, in half precision, filling 40 tokens or not."""
    lengths = [40] * 24 if request.param == "whole" else [1 + row for row in range(24)]
    return TextConditions.from_list([torch.randn(length, SIZES.text_dim).half() for length in lengths])


def close(found, expected, limit):
    """Relative error in the norm."""
    error = (found - expected).norm() / expected.norm()
    assert error < limit, f"{float(error):.2e}"


def make_task(stage, prior, adapter, diffusion, texts, **options):
    vectors = F.normalize(torch.randn(24, SIZES.dim, generator=torch.Generator().manual_seed(1)), dim=1)
    prior, adapter = copy.deepcopy(prior), copy.deepcopy(adapter)
    if stage == 1:
        return PriorTask(prior, diffusion, vectors, texts, 0.2, **options)
    return ControlTask(prior, adapter, diffusion, vectors.flip(0), vectors, texts, 0.2, **options)


def gradients(task, seed, half=False):
    """Of one batch of 16: the loss, and all gradients in a row."""
    task.model.zero_grad(set_to_none=True)
    with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
        loss, _ = task.loss(task.model.train(), torch.arange(16), torch.Generator().manual_seed(seed), DEVICE)
    loss.backward()
    return loss.detach(), torch.cat(
        [parameter.grad.flatten() for parameter in task.model.parameters() if parameter.grad is not None]
    )


@pytest.mark.parametrize("kind", ["self_attention", "cross_attention"])
def test_projections_that_a_gpu_computes_as_one_are_the_layers(prior, kind):
    attention = getattr(prior.blocks[0].body, kind)
    tokens = torch.randn(3, 16, SIZES.width, device=DEVICE, requires_grad=True)
    seeds = torch.randn(len(attention.together), 3, 16, SIZES.width, device=DEVICE)
    found = []
    for parts in (attention.project(tokens), [getattr(attention, name)(tokens) for name in attention.together]):
        outputs = torch.stack(list(parts))
        weights = [getattr(attention, name).weight for name in attention.together]
        found.append([outputs, *torch.autograd.grad((outputs * seeds).sum(), [tokens, *weights])])
    for one, other in zip(*found, strict=True):
        close(one, other, 1e-5)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_fused_training_step_is_the_plain_one(stage, prior, adapter, diffusion, texts):
    """For several numbers of dropped texts, as rows of their own and as a mask; no further from fp32 than plain operators in bfloat16."""
    plain, fused, constant = (
        make_task(stage, prior, adapter, diffusion, texts, fused=fused, cuda_graph=constant)
        for fused, constant in ((False, False), (True, False), (True, True))
    )
    for seed in range(3):
        expected, rounded = gradients(plain, seed), gradients(plain, seed, half=True)
        for task in (fused, constant):
            close(gradients(task, seed)[1], expected[1], 1e-4)
            found = gradients(task, seed, half=True)
            close(found[0], expected[0], 0.01)
            close(found[1], expected[1], 1.2 * float((rounded[1] - expected[1]).norm() / expected[1].norm()))


needs_8_bits = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9), reason="needs products of 8 bits"
)


@needs_8_bits
@pytest.mark.parametrize("stage", [1, 2])
def test_a_training_step_in_8_bits_is_near_the_plain_one(stage, prior, adapter, diffusion, texts):
    """Whatever the gradients' size: the loss by 2%, all gradients together by a tenth in angle; other than bfloat16's."""
    plain, half, small = (
        make_task(stage, prior, adapter, diffusion, texts, **given)
        for given in ({}, {"fused": True}, {"fused": True, "fp8": True})
    )
    for seed in range(2):
        expected, rounded, found = (
            gradients(plain, seed),
            gradients(half, seed, half=True),
            gradients(small, seed, half=True),
        )
        close(found[0], expected[0], 0.02)
        close(found[1], expected[1], 0.1)
        assert not torch.equal(found[1], rounded[1])
    with torch.autocast(DEVICE, torch.bfloat16):
        loss, _ = small.loss(small.model, torch.arange(16), torch.Generator().manual_seed(1), DEVICE)
    small.model.zero_grad(set_to_none=True)
    (1e-6 * loss).backward()
    tiny = torch.cat([parameter.grad.flatten() for parameter in small.model.parameters() if parameter.grad is not None])
    close(1e6 * tiny, found[1], 0.01)


def test_a_deterministic_training_repeats_itself(prior, adapter, diffusion, texts, tmp_path):
    make_deterministic(DEVICE, True)
    params = OptimiserParams(steps=3, batch_size=16, micro_batch_size=8, precision="bf16", checkpoint_every=100)
    logs = []
    for number in range(2):
        task = make_task(1, prior, adapter, diffusion, texts, fused=True)
        log = train(task, params, seed=0, folder=tmp_path / str(number), identity={}, device=DEVICE)
        logs.append((log, torch.cat([parameter.detach().flatten() for parameter in task.model.parameters()])))
    assert logs[0][0] == logs[1][0] and torch.equal(logs[0][1], logs[1][1])


@pytest.mark.parametrize("stage", [1, 2])
def test_training_recorded_as_graphs_is_training(stage, prior, adapter, diffusion, texts, tmp_path):
    """Eight micro-batches: the first runs, the second is recorded, the others are replayed; several sizes of text with ragged ones."""
    make_deterministic(DEVICE, True)
    params = OptimiserParams(
        steps=4, batch_size=16, micro_batch_size=8, precision="bf16", checkpoint_every=100, lr=1e-3, log_every=1
    )
    logs, weights = [], []
    for graphed in (False, True):
        task = make_task(stage, prior, adapter, diffusion, texts, fused=True, cuda_graph=graphed)
        logs.append(train(task, params, seed=0, folder=tmp_path / str(graphed), identity={}, device=DEVICE))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in task.model.parameters()]))
    for one, other in zip(*logs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)
    close(weights[1], weights[0], 1e-4)


@pytest.mark.parametrize("guided_share", [1.0, 0.5])
def test_fast_sampling_is_the_plain_one_and_no_query_sees_its_company(prior, adapter, diffusion, queries, guided_share):
    """fp32 within 1e-5; bfloat16, alone and among 32, at a cosine of 0.9999 with each other and of 0.999 with fp32."""
    options = {"solver_steps": 6, "guided_share": guided_share}
    plain = Sampler(prior, adapter, diffusion, SamplerSettings(**options)).sample(IDS, *queries, cached=False)
    fast = Sampler(copy.deepcopy(prior), copy.deepcopy(adapter), diffusion, SamplerSettings(**options), fast=True)
    close(fast.sample(IDS, *queries), plain, 1e-5)
    half = Sampler(prior.bfloat16(), adapter.bfloat16(), diffusion, SamplerSettings(**options), fast=True)
    among = half.sample(IDS, *queries)
    alone = torch.cat(
        [half.sample(IDS[row : row + 1], *(part[row : row + 1] for part in queries)) for row in (0, 15, 31)]
    )
    assert F.cosine_similarity(alone, among[[0, 15, 31]], dim=-1).min() > 0.9999
    assert F.cosine_similarity(among, plain, dim=-1).min() > 0.999


@needs_8_bits
def test_sampling_with_products_of_8_bits(prior, adapter, diffusion, queries):
    """Nearer to fp32 than a tenth in angle's cosine, other than bfloat16's samples, and refused for sizes that it cannot take."""
    plain = Sampler(prior, adapter, diffusion, SamplerSettings(6)).sample(IDS, *queries, cached=False)
    prior.bfloat16(), adapter.bfloat16()
    half, small = (
        Sampler(copy.deepcopy(prior), copy.deepcopy(adapter), diffusion, SamplerSettings(6), fast=True, fp8=fp8)
        for fp8 in (False, True)
    )
    found, other = small.sample(IDS, *queries), half.sample(IDS, *queries)
    assert F.cosine_similarity(found, plain, dim=-1).min() > 0.99
    assert not torch.equal(found, other) and torch.equal(found, small.sample(IDS, *queries))
    narrow = Prior(PriorSizes(**{**vars(SIZES), "width": 136})).to(DEVICE).bfloat16()
    with pytest.raises(ValueError, match="136 to 408 numbers; both must be multiples of 16"):
        Sampler(narrow, None, diffusion, SamplerSettings(6), fast=True, fp8=True)


def test_batches_of_a_thread_beside_other_work_on_the_gpu(prior, adapter, diffusion, queries):
    """A graph is recorded in the batcher's thread while another one allocates and computes."""
    sampler, ended = Sampler(prior, adapter, diffusion, SamplerSettings(3), fast=True), threading.Event()
    states, _, control = queries

    def busy():
        size = 64
        while not ended.is_set():
            size = size % 4096 + 64
            torch.ones(size, size, device=DEVICE).matmul(torch.ones(size, 64, device=DEVICE)).sum().item()

    other = threading.Thread(target=busy)
    other.start()
    try:
        with SamplingBatcher(sampler) as batcher:
            promises = [batcher.submit(IDS[row], states[row], control[row]) for row in range(5)]
            drawn = torch.stack([promise.result(300) for promise in promises])
    finally:
        ended.set()
        other.join()
    expected = sampler.sample(IDS[:5], states[:5], torch.ones(5, 40, dtype=torch.bool), control[:5], cached=False)
    close(drawn, expected.cpu(), 1e-5)

"""What only a GPU does: fused kernels in bfloat16, 8-bit products, CUDA graphs, copies beside the work."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F

from pipeline.config import DiffusionParams, OptimiserParams, Speed
from pipeline.fusion_diff import (
    ControlAdapter,
    ControlledPrior,
    ControlTask,
    Diffusion,
    Prior,
    PriorSizes,
    PriorTask,
    ReferenceSampler,
    Sampler,
    SamplerSettings,
    TextConditions,
)
from pipeline.gpu import accelerate
from pipeline.gpu.batcher import SamplingBatcher
from pipeline.runtime import make_deterministic
from pipeline.training import Run, train
from tests.sections import section

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
FUSED, FP8 = Speed(fused=True), Speed(fused=True, fp8=True)
FAST, FAST_FP8 = Speed(fused=True, cuda_graph=True), Speed(fused=True, fp8=True, cuda_graph=True)
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
    return Diffusion(section(DiffusionParams), SIZES.dim)


@pytest.fixture
def queries():
    """Of 32: token states of 1 to 40 tokens, their mask, control vectors."""
    lengths = 1 + torch.arange(32) * 39 // 31
    text = torch.randn(32, 40, SIZES.text_dim), torch.arange(40) < lengths[:, None]
    return text, F.normalize(torch.randn(32, SIZES.dim), dim=1)


@pytest.fixture(params=["whole", "ragged"])
def texts(request):
    """Of 24 examples, in half precision, filling 40 tokens or not."""
    lengths = [40] * 24 if request.param == "whole" else [1 + row for row in range(24)]
    return TextConditions.from_list([torch.randn(length, SIZES.text_dim).half() for length in lengths])


def close(found, expected, limit):
    """Relative error in the norm."""
    error = (found - expected).norm() / expected.norm()
    assert error < limit, f"{float(error):.2e}"


@pytest.fixture
def make_task(prior, adapter, diffusion, texts):
    """Stage 1 or 2 over 24 examples, of copies of the models."""

    def make(stage, speed=None):
        vectors = F.normalize(torch.randn(24, SIZES.dim, generator=torch.Generator().manual_seed(1)), dim=1)
        own = copy.deepcopy(prior)
        model = own if stage == 1 else ControlledPrior(own, copy.deepcopy(adapter))
        accelerate(model, speed or Speed())
        if stage == 1:
            return PriorTask(model, diffusion, vectors, texts, 0.2)
        return ControlTask(model, diffusion, vectors.flip(0), vectors, texts, 0.2)

    return make


def gradients(task, seed, half=False, fixed_shapes=False):
    """Of one batch of 16: the loss, and all gradients in a row."""
    task.model.zero_grad(set_to_none=True)
    inputs = task.inputs(torch.arange(16), torch.Generator().manual_seed(seed), DEVICE, fixed_shapes)
    with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
        loss, _ = task.loss_of(task.model.train(), *inputs)
    loss.backward()
    return loss.detach(), flat_gradients(task)


def flat_gradients(task):
    """All gradients in a row."""
    return torch.cat([p.grad.flatten() for p in task.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("stage", [1, 2])
def test_a_fused_training_step_is_the_plain_one(stage, make_task):
    """For several numbers of dropped texts, as rows of their own and as a mask.

    No further from fp32 than plain operators in bfloat16.
    """
    plain, fused = make_task(stage), make_task(stage, FUSED)
    for seed in range(3):
        expected, rounded = gradients(plain, seed), gradients(plain, seed, half=True)
        for fixed_shapes in (False, True):
            close(gradients(fused, seed, fixed_shapes=fixed_shapes)[1], expected[1], 1e-4)
            found = gradients(fused, seed, True, fixed_shapes)
            close(found[0], expected[0], 0.01)
            close(found[1], expected[1], 1.2 * float((rounded[1] - expected[1]).norm() / expected[1].norm()))


needs_8_bits = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9), reason="needs products of 8 bits"
)


@needs_8_bits
@pytest.mark.parametrize("stage", [1, 2])
def test_a_training_step_in_8_bits_is_near_the_plain_one(stage, make_task):
    """Whatever the gradients' size: the loss by 2%, all gradients together by a tenth; other than bfloat16's."""
    plain, half, fp8 = make_task(stage), make_task(stage, FUSED), make_task(stage, FP8)
    for seed in range(2):
        expected, rounded, found = gradients(plain, seed), gradients(half, seed, True), gradients(fp8, seed, True)
        close(found[0], expected[0], 0.02)
        close(found[1], expected[1], 0.1)
        assert not torch.equal(found[1], rounded[1])
    with torch.autocast(DEVICE, torch.bfloat16):
        loss, _ = fp8.loss(fp8.model, torch.arange(16), torch.Generator().manual_seed(1), DEVICE)
    fp8.model.zero_grad(set_to_none=True)
    (1e-6 * loss).backward()
    close(1e6 * flat_gradients(fp8), found[1], 0.01)


def test_a_deterministic_training_repeats_itself(make_task, tmp_path):
    make_deterministic(DEVICE, True)
    params = section(
        OptimiserParams, steps=3, batch_size=16, micro_batch_size=8, precision="bf16", checkpoint_every=100
    )
    logs = []
    for number in range(2):
        task = make_task(1, FUSED)
        log = train(task, params, Run(0, tmp_path / str(number), {}, DEVICE))
        logs.append((log, torch.cat([parameter.detach().flatten() for parameter in task.model.parameters()])))
    assert logs[0][0] == logs[1][0] and torch.equal(logs[0][1], logs[1][1])


@pytest.mark.parametrize("stage", [1, 2])
def test_training_recorded_as_graphs_is_training(stage, make_task, tmp_path):
    """Eight micro-batches: the first runs, the second is recorded, the others are replayed; sizes of text differ."""
    make_deterministic(DEVICE, True)
    params = section(
        OptimiserParams,
        steps=4,
        batch_size=16,
        micro_batch_size=8,
        precision="bf16",
        checkpoint_every=100,
        lr=1e-3,
        log_every=1,
    )
    logs, weights = [], []
    for graphed in (False, True):
        task = make_task(stage, FUSED)
        logs.append(train(task, params, Run(0, tmp_path / str(graphed), {}, DEVICE, cuda_graph=graphed)))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in task.model.parameters()]))
    for one, other in zip(*logs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)
    close(weights[1], weights[0], 1e-4)


def part(queries, rows):
    (states, mask), control = queries
    return (states[rows], mask[rows]), control[rows]


def fast(prior, adapter, diffusion, settings, speed=FAST):
    """An accelerated sampler of copies of the models."""
    own = copy.deepcopy(prior), None if adapter is None else copy.deepcopy(adapter)
    return accelerate(Sampler(*own, diffusion, settings), speed)


@pytest.mark.parametrize("guided_share", [1.0, 0.5])
def test_fast_sampling_is_the_plain_one_and_no_query_sees_its_company(prior, adapter, diffusion, queries, guided_share):
    """fp32 within 1e-5; bfloat16, alone and among 32, at a cosine of 0.9999 with each other and of 0.999 with fp32."""
    settings = SamplerSettings(6, guided_share=guided_share)
    plain = ReferenceSampler(prior, adapter, diffusion, settings).sample(IDS, *queries)
    close(fast(prior, adapter, diffusion, settings).sample(IDS, *queries), plain, 1e-5)
    half = fast(prior.bfloat16(), adapter.bfloat16(), diffusion, settings)
    among, rows = half.sample(IDS, *queries), (0, 15, 31)
    alone = torch.cat([half.sample(IDS[row : row + 1], *part(queries, slice(row, row + 1))) for row in rows])
    assert F.cosine_similarity(alone, among[list(rows)], dim=-1).min() > 0.9999
    assert F.cosine_similarity(among, plain, dim=-1).min() > 0.999


def test_other_scales_and_negative_texts_beside_a_recorded_sampler(prior, adapter, diffusion, queries):
    """They take the plain way, through the fused blocks of the models that the recorded one has prepared."""
    settings, negative = SamplerSettings(6), queries[0]
    others = tuple(values.flip(0) for values in queries[0]), queries[1]
    plain, scaled = (
        ReferenceSampler(prior, adapter, diffusion, given) for given in (settings, SamplerSettings(6, 1.0, 0.5))
    )
    expected = plain.sample(IDS, *others, negative=negative), scaled.sample(IDS, *others)
    sampler = fast(prior.bfloat16(), adapter.bfloat16(), diffusion, settings)
    found = sampler.sample(IDS, *others, negative=negative), sampler.scaled(1.0, 0.5).sample(IDS, *others)
    for one, other in zip(found, expected, strict=True):
        assert F.cosine_similarity(one, other, dim=-1).min() > 0.999


@needs_8_bits
def test_sampling_with_products_of_8_bits(prior, adapter, diffusion, queries):
    """At a cosine of 0.99 with fp32, other than bfloat16's samples, and rejected for sizes that it cannot take."""
    settings = SamplerSettings(6)
    plain = ReferenceSampler(prior, adapter, diffusion, settings).sample(IDS, *queries)
    prior.bfloat16(), adapter.bfloat16()
    half, fp8 = (fast(prior, adapter, diffusion, settings, speed) for speed in (FAST, FAST_FP8))
    found, other = fp8.sample(IDS, *queries), half.sample(IDS, *queries)
    assert F.cosine_similarity(found, plain, dim=-1).min() > 0.99
    assert not torch.equal(found, other) and torch.equal(found, fp8.sample(IDS, *queries))
    narrow = Prior(PriorSizes(**{**vars(SIZES), "width": 136})).to(DEVICE).bfloat16()
    with pytest.raises(ValueError, match="136 to 408 numbers; both must be multiples of 16"):
        fast(narrow, None, diffusion, settings, FAST_FP8)


def test_batches_of_a_thread_beside_other_work_on_the_gpu(prior, adapter, diffusion, queries):
    """A graph is recorded in the batcher's thread while another one allocates and computes."""
    settings, ended = SamplerSettings(3), threading.Event()
    sampler, ((states, _), control) = fast(prior, adapter, diffusion, settings), queries

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
    expected = ReferenceSampler(prior, adapter, diffusion, settings).sample(IDS[:5], (states[:5], None), control[:5])
    close(drawn, expected.cpu(), 1e-5)

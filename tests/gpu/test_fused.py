"""Fused blocks against the plain operators: by Triton's interpreter on a CPU, and on a GPU where there is one."""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")

from pipeline.config import Speed
from pipeline.fusion_diff import ControlAdapter, ControlledPrior, Prior, PriorSizes
from pipeline.fusion_diff.layers import modulate
from pipeline.fusion_diff.texts import TextContext
from pipeline.gpu import accelerate
from pipeline.gpu.fused import FusedPrior, fuse, prepare
from pipeline.gpu.kernels import attention, norm
from pipeline.gpu.kernels.norm import GatedBranch
from pipeline.gpu.packing import PackedText, pack
from pipeline.gpu.pending import PendingSum

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = PriorSizes(
    dim=24,
    channels=4,
    grid=8,
    patch_size=2,
    width=80,
    heads=2,
    depth=2,
    ffn_ratio=2,
    time_frequencies=8,
    text_dim=12,
    text_tokens=35,
)
"""Heads of 40 numbers, of two tiles as the paper's 72; the null condition fills more than one tile of keys below."""


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """Several tiles of queries and keys, in tensors that an interpreter gets through."""
    monkeypatch.setattr(attention, "FORWARD", attention.FORWARD | {"BM": 16, "BN": 32})
    monkeypatch.setattr(attention, "BACKWARD", attention.BACKWARD | {"BM": 16, "BN": 32, "num_warps": 4})
    monkeypatch.setattr(norm, "CHUNK", 11)


@pytest.fixture
def prior(randomise):
    return randomise(Prior(SIZES), 0.2).to(DEVICE).train()


def make_texts(rows, mask=None):
    return torch.randn(rows, 6, SIZES.text_dim, device=DEVICE), mask


def close(found, expected, limit=1e-5):
    error = (found - expected).norm() / expected.norm()
    assert error < limit, f"{float(error):.2e}"


@torch.no_grad()
def without_gradients(prior, hidden, modulations, context, more):
    """Two fused blocks as sampling runs them, with prepared weights and with those at hand."""
    prior.eval()
    outputs = []
    for prepared in (True, False):
        out = hidden
        if prepared:
            prepare(prior)
        for block, modulation, extra in zip(prior.blocks, modulations, (None, more), strict=True):
            out = block(out, modulation, block.body.cross_attention.keys_values(context), extra)
        outputs.append(out.summed())
        prior.train()  # forgets what was prepared
    assert prior.blocks[0].body.prepared is None and torch.equal(*outputs)
    return outputs[0]


def split(features, heads):
    return features.unflatten(-1, (heads, -1)).transpose(1, 2)


@pytest.mark.parametrize("heads", [1, 2, 5])  # of 80, 40 and 16 numbers
@pytest.mark.parametrize("queries", [16, 21])
def test_attention_to_texts_of_any_length(heads, queries):
    """Each sample its own stretch, some share one; gradients go where they are told to, and nowhere else."""
    stretches = [0, 5, 38, 38], [5, 33, 16, 16], [0, 5, 38, 60]
    start, count, own = (torch.tensor(values, dtype=torch.int32, device=DEVICE) for values in stretches)
    query, grad = torch.randn(2, 4, queries, 80, device=DEVICE)
    keys, values = torch.randn(2, 60, 80, device=DEVICE)
    leaves = [part.clone().requires_grad_() for part in (query, keys, values)]
    expected = []
    for row in range(4):
        own_keys = slice(int(start[row]), int(start[row] + count[row]))
        parts = (leaves[0][row : row + 1], leaves[1][None, own_keys], leaves[2][None, own_keys])
        expected.append(
            F.scaled_dot_product_attention(*(split(part, heads) for part in parts)).transpose(1, 2).flatten(2)
        )
    expected = torch.cat(expected)
    seen = attention.Stretches(start, count, own, longest=33)
    attended = attention.attend(query, keys, values, heads, seen)
    close(attended.out, expected)
    wanted = torch.autograd.grad(expected, leaves, grad)
    found = torch.empty_like(query), *torch.zeros(2, 80, 80, device=DEVICE)
    attention.attend_backward((query, keys, values), heads, attended, grad, found, seen)
    close(found[0], wanted[0])
    for part, want in zip(found[1:], wanted[1:], strict=True):
        together = part[:60].clone()
        together[38:54] += part[60:76]
        close(together, want)
        assert not part[54:60].any() and not part[76:].any()


@pytest.mark.parametrize("modulated", [True, False])
def test_a_pending_sum_is_its_sum_or_normalised(modulated):
    """Where a block's output ends: the last layer, the Control-Adapter's."""
    hidden, branch, grad = torch.randn(3, 3, 11, 80, device=DEVICE)
    gate, shift, scale = torch.randn(3, 9, 80, device=DEVICE).split(1, dim=1)[2:5]
    leaves = [
        part.detach().clone().requires_grad_()
        for part in (hidden, branch, torch.randn(80, device=DEVICE), gate, shift, scale)
    ]
    expected = leaves[0] + leaves[3] * (leaves[1] + leaves[2])
    stream = PendingSum(leaves[0], GatedBranch(*leaves[1:4]))
    if modulated:
        expected, found = modulate(expected, *leaves[4:]), stream.modulated(*leaves[4:])
    else:
        found, leaves = stream.summed(), leaves[:4]
    close(found, expected)
    close(stream[1:].summed(), stream.summed()[1:])
    for one, other in zip(
        torch.autograd.grad(found, leaves, grad), torch.autograd.grad(expected, leaves, grad), strict=True
    ):
        close(one, other)


@pytest.mark.parametrize(
    ("texts", "without", "added"),
    [
        ("whole", "none", None),
        ("ragged", "none", "shift"),
        ("whole", "first", "tokens"),
        ("ragged", "first", None),
        ("whole", "dropped", None),
        ("ragged", "dropped", "tokens"),
        ("whole", "all", None),
    ],
)
def test_two_blocks_are_the_plain_ones(prior, texts, without, added):
    """Output and every gradient, those of the texts and of the null condition too."""
    rows = 4
    mask = torch.rand(rows, 6, device=DEVICE) < 0.5
    mask[:, 2] = True
    states, mask = torch.randn(rows, 6, SIZES.width, device=DEVICE), mask[:, None, None] if texts == "ragged" else None
    null = torch.randn(1, SIZES.text_tokens, SIZES.width, device=DEVICE)
    hidden, modulations = (
        torch.randn(rows, 16, SIZES.width, device=DEVICE),
        torch.randn(2, rows, 9, SIZES.width, device=DEVICE),
    )
    more = torch.randn(3, 1 if added == "shift" else 16, SIZES.width, device=DEVICE)
    leaves = [part.requires_grad_() for part in (states, null, hidden, modulations, more)]
    some = None if mask is None else mask[1:]
    dropped = torch.tensor([True, False], device=DEVICE)[:, None, None]
    context = {
        "none": TextContext(None, states, mask),
        "first": TextContext(null, states[1:], some),
        "dropped": TextContext(null, states, mask, dropped),
        "all": TextContext(null, None, None),
    }[without]
    grad, results = torch.randn(rows, 16, SIZES.width, device=DEVICE), []
    for given in (context, pack(context, rows)):
        if given is not context:
            fuse(prior)
        out = hidden
        for block, modulation, extra in zip(
            prior.blocks, modulations, (None, None if added is None else more), strict=True
        ):
            out = block(out, modulation, block.body.cross_attention.keys_values(given), extra)
        out = out if isinstance(out, torch.Tensor) else out.summed()
        parameters = [parameter for block in prior.blocks for parameter in block.body.parameters()]
        results.append(
            [out, *torch.autograd.grad(out, [*leaves, *parameters], grad, allow_unused=True, retain_graph=True)]
        )
    close(
        without_gradients(prior, hidden, modulations, pack(context, rows), None if added is None else more),
        results[0][0],
        2e-5,
    )
    names = [
        "out",
        "texts",
        "null",
        "hidden",
        "modulation",
        "added",
        *2 * [name for name, _ in prior.blocks[0].body.named_parameters()],
    ]
    for name, plain, fused in zip(names, *results, strict=True):
        if name.endswith(
            "attention.key.bias"
        ):  # it moves all logits of a query alike: nothing but rounding is left there
            assert plain.norm() < 1e-4 * results[0][0].norm() and not fused.any()
        elif plain is None:
            assert fused is None or not fused.any()
        else:
            close(fused, plain, 2e-5)


def test_a_model_is_fused_in_place(prior, randomise):
    """Its parameters, their names and every reference stay; a second time changes nothing."""
    model = ControlledPrior(prior, ControlAdapter(prior))
    before = dict(model.named_parameters())
    for _ in range(2):
        assert accelerate(model, Speed(fused=True)) is model and type(model.prior) is FusedPrior is type(prior)
        after = dict(model.named_parameters())
        assert after.keys() == before.keys() and all(after[name] is before[name] for name in before)
    plain = Prior(SIZES)
    assert accelerate(plain, Speed()) is plain and type(plain) is Prior


def test_the_prior_is_fused_in_half_precision_alone(prior, randomise):
    """Under autocast its output and gradients are near the plain ones, with control too.

    The gradients of its weights are float32.
    """
    model = ControlledPrior(prior, randomise(ControlAdapter(prior), 0.2).to(DEVICE), 0.5)
    model.requires_grad_(True)
    noisy, control, step = *torch.randn(2, 3, SIZES.dim, device=DEVICE), torch.tensor([1, 500, 999], device=DEVICE)
    states, dropped = torch.randn(3, 6, SIZES.text_dim, device=DEVICE), torch.tensor([True, False], device=DEVICE)
    plain = model(noisy, step, states, None, control, dropped)
    accelerate(model, Speed(fused=True))
    assert torch.equal(model(noisy, step, states, None, control, dropped), plain)
    with torch.autocast(DEVICE, torch.float16):  # an interpreter has no bfloat16
        assert type(prior.text_context(states, None, 3, dropped)) is PackedText
        found = model(noisy, step, states, None, control, dropped)
        with torch.no_grad():
            close(model(noisy, step, states, None, control, dropped), plain.detach(), 0.01)
    close(found, plain, 0.01)
    parameters = [*prior.parameters(), *model.adapter.parameters()]
    for one, other in zip(
        torch.autograd.grad(found.sum(), parameters), torch.autograd.grad(plain.sum(), parameters), strict=True
    ):
        assert one.dtype == torch.float32
        if other.norm() > 1e-3:
            close(one, other, 0.03)

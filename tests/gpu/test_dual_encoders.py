"""What a GPU does differently with a dual encoder: masks as a channel of the keys, texts in few shapes."""

import pytest
import torch

from pipeline.diffcomp.masking import attention_bias
from pipeline.encoders.dual.interface import biased_attention, with_bias_channel
from pipeline.encoders.dual.shapes import LENGTH, ROWS, few_shapes

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def inputs(dtype, device="cpu"):
    """Queries, keys, values [2, 3, 17, 64], a mask of 16 patches, and a gradient."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(2, 3, 17, 64, generator=generator, dtype=torch.float64) for _ in range(4)]
    mask = (torch.rand(2, 16, generator=generator) < 0.5).double()
    query, key, value, grad, mask = (one.to(device, dtype) for one in (*drawn, mask))
    return [one.requires_grad_() for one in (query, key, value, mask.float())], grad


def output_and_gradients(attend, leaves, grad):
    query, key, value, mask = leaves
    out = attend(query, key, value, attention_bias(mask))
    return out, *torch.autograd.grad(out, leaves, grad)


def test_a_bias_as_a_channel_is_the_bias():
    leaves, grad = inputs(torch.float64)
    found = output_and_gradients(with_bias_channel, leaves, grad)
    expected = output_and_gradients(biased_attention, leaves, grad)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_gpu)])
def test_masked_attention_in_half_precision(device):
    """Against the plain products in double precision. A bias in bfloat16 alone: 3% off in the masks' gradient."""
    found = output_and_gradients(with_bias_channel, *inputs(torch.bfloat16, device))
    expected = output_and_gradients(biased_attention, *inputs(torch.float64))
    for one, other in zip(found, expected, strict=True):
        assert torch.isfinite(one).all()
        error = (one.cpu().double() - other.double()).norm() / other.double().norm()
        assert error < 0.01


@pytest.mark.parametrize(
    ("rows", "longest", "shape"), [(1, 5, (1, 8)), (32, 8, (32, 8)), (33, 9, (64, 16)), (70, 75, (96, 77))]
)
def test_texts_in_few_shapes(rows, longest, shape):
    token_ids = torch.arange(rows * 77).view(rows, 77)
    padded, length = few_shapes(token_ids, longest)
    assert (len(padded), length) == shape and length >= longest
    assert torch.equal(padded[:rows], token_ids) and (padded[rows:] == token_ids[-1]).all()
    assert length % LENGTH == 0 or length == 77
    assert rows <= ROWS or len(padded) % ROWS == 0


@on_gpu
def test_rounded_shapes_change_no_text():
    from tests.encoders.dual.test_dual_encoders import small_clip

    encoder = small_clip().cuda().eval()
    texts = [" ".join(["red ball"] * (1 + number % 4)) for number in range(45)]
    ids = encoder.tokenize(texts).cuda()
    together = encoder.encode_text(ids)
    alone = torch.cat([encoder.encode_text(one) for one in ids.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-3)
    torch.testing.assert_close(together.cpu(), encoder.cpu().encode_text(ids.cpu()), rtol=0, atol=2e-3)

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F

from pipeline.config import load_profile
from pipeline.decoder import Decoder, DecoderSizes, Flow
from tests.committed import ROOT


def sana_parameters(width, layers, channels, text_width, hidden):
    """The parameters of SANA 1.5, counted by hand from its blocks."""
    attention = 4 * width * width + width + 2 * width  # without biases but of the output, and two norms
    cross = 4 * width * width + 4 * width + 2 * width
    convolutions = width * 2 * hidden + 2 * hidden + 9 * 2 * hidden + 2 * hidden + hidden * width
    block = attention + cross + convolutions + 6 * width
    patches, out = channels * width + width, width * channels + channels + 2 * width
    time = 256 * width + width + width * width + width + 6 * width * width + 6 * width
    text = text_width * width + width + width * width + width + width
    return layers * block + patches + out + time + text


def test_the_paper_profile_has_sana_1_5s_sizes():
    params = load_profile("paper", ROOT / "conf")
    dim = 8192
    with torch.device("meta"):
        decoder = Decoder(DecoderSizes.from_params(params.decoder, dim))
    sana = sum(parameter.numel() for parameter in decoder.transformer.parameters())
    assert sana == sana_parameters(2240, 20, 32, 2304, 5600) == 1_604_641_952
    own = sum(parameter.numel() for parameter in decoder.parameters()) - sana
    assert own == (dim + 1) * 16 * 2304 + 16 * 2304  # the projection of z, and what stands for a dropped one
    assert (decoder.sizes.side, decoder.sizes.channels) == (14, 32)


def test_the_shapes_are_those_of_the_images(decoder, sizes):
    noisy = torch.randn(3, 3, 16, 16)
    found = decoder(noisy, torch.rand(3), torch.randn(3, sizes.dim))
    assert found.shape == noisy.shape and found.dtype == torch.float32


def test_z_is_seen_unless_it_is_dropped(decoder, sizes):
    noisy, level = torch.randn(1, 3, 16, 16).expand(2, -1, -1, -1), torch.full((2,), 0.5)
    z = torch.randn(2, sizes.dim)
    one, other = decoder(noisy, level, z)
    assert (one - other).abs().max() > 1e-4
    one, other = decoder(noisy, level, z, torch.tensor([True, True]))
    torch.testing.assert_close(one, other)
    seen, without = decoder(noisy, level, z, torch.tensor([False, True]))
    torch.testing.assert_close(seen, decoder(noisy, level, z)[0])
    torch.testing.assert_close(without, one)


def test_the_null_tokens_learn_from_dropped_examples_alone(decoder, sizes):
    batch = torch.randn(2, 3, 16, 16), torch.rand(2), torch.randn(2, sizes.dim)
    decoder(*batch, torch.tensor([False, False])).square().sum().backward()
    assert not decoder.null.grad.any()
    decoder(*batch, torch.tensor([False, True])).square().sum().backward()
    assert decoder.null.grad.any()


def test_a_model_without_positions_takes_any_side(sizes):
    decoder = Decoder(replace(sizes, positions=False))
    assert decoder(torch.randn(1, 3, 24, 24), torch.rand(1), torch.randn(1, sizes.dim)).shape == (1, 3, 24, 24)


def test_in_half_precision_the_flow_stays_in_full(decoder, sizes):
    """Steps are added up in float32 whatever the model computes in, and end near those of a model in float32."""
    half = copy.deepcopy(decoder).to(torch.bfloat16).eval()
    z = F.normalize(torch.randn(2, sizes.dim), dim=1)
    noise = torch.randn(2, sizes.channels, sizes.side, sizes.side)
    with torch.no_grad():
        exact, found = (Flow(1.0).sample(model, z, noise, 3, 2.0) for model in (decoder.eval(), half))
    assert found.dtype == torch.float32
    assert (found - exact).norm() < 0.02 * exact.norm()

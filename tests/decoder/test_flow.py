import copy
from dataclasses import replace

import pytest
import torch
from torch.utils._pytree import tree_leaves

from pipeline.decoder import Decoder, Flow
from pipeline.gpu.recording import record
from tests.gpu.tape import Tape, tapes  # noqa: F401  (a fixture)


class Straight:
    """A decoder that knows where every z leads: to an image of z's first number."""

    def __init__(self):
        self.seen = []

    def __call__(self, noisy, level, z, dropped=None):
        self.seen.append((len(noisy), float(level[0])))
        clean = z[:, :1, None, None].expand_as(noisy)
        if dropped is not None:
            clean = torch.where(dropped[:, None, None, None], 0.0, clean)
        return (noisy - clean) / level[:, None, None, None]


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 5])
def test_the_flow_leads_to_what_the_velocity_points_to(shift, steps):
    decoder, z = Straight(), torch.tensor([[0.5, 0.0], [-0.25, 0.0]])
    found = Flow(shift).sample(decoder, z, torch.randn(2, 3, 4, 4), steps, 1.0)
    torch.testing.assert_close(found, z[:, :1, None, None].expand(2, 3, 4, 4))
    assert [count for count, _ in decoder.seen] == [2] * steps
    assert decoder.seen[0][1] == 1.0


def test_guidance_moves_away_from_what_is_seen_without_z():
    z = torch.tensor([[0.5, 0.0]])
    found = Flow(1.0).sample(Straight(), z, torch.randn(1, 3, 4, 4), 4, 3.0)
    torch.testing.assert_close(found, torch.full((1, 3, 4, 4), 1.5))  # 0 + 3 (0.5 - 0)


def test_noise_goes_from_the_image_to_noise():
    clean, noise = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    found = Flow(1.0).noise(clean, torch.tensor([0.0, 1.0, 0.25]), noise)
    torch.testing.assert_close(found, torch.stack([clean[0], noise[1], 0.75 * clean[2] + 0.25 * noise[2]]))


def test_shifted_levels_have_more_noise():
    plain, shifted = (Flow(shift).draw(4000, torch.Generator().manual_seed(0)) for shift in (1.0, 3.0))
    assert float(plain.median()) == pytest.approx(0.5, abs=0.03)
    assert float(shifted.median()) == pytest.approx(0.75, abs=0.03)
    assert float(shifted.min()) > 0.0 and float(shifted.max()) < 1.0


@torch.no_grad()
@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_a_recorded_decoder_draws_what_the_plain_one_does(decoder, sizes, tapes, guidance_scale):  # noqa: F811
    """One graph a shape, whatever the step; see `tests/gpu/tape.py`."""
    flow, recorded = Flow(2.0), copy.deepcopy(decoder)
    record(recorded)
    for rows in (1, 2, 1):
        z, noise = torch.randn(rows, sizes.dim), torch.randn(rows, 3, sizes.side, sizes.side)
        plain, quick = (flow.sample(one, z, noise, 3, guidance_scale) for one in (decoder, recorded))
        torch.testing.assert_close(quick, plain, atol=1e-5, rtol=1e-5)
    assert [tape.replays for tape in tapes] == [6, 3]


def test_a_decoder_stays_on_its_device(sizes):
    """A graph takes no copy from the CPU, which would be seen here as an operation on another device."""
    with torch.device("meta"):
        decoder = Decoder(replace(sizes, positions=False)).eval()
        inputs = torch.randn(2, 3, 16, 16), torch.rand(2), torch.randn(2, sizes.dim), torch.zeros(2, dtype=torch.bool)
    with torch.no_grad(), Tape() as tape:
        decoder(*inputs)
    seen = {value.device.type for call in tape.calls for value in tree_leaves(call[1:]) if torch.is_tensor(value)}
    assert seen == {"meta"}

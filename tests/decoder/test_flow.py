import pytest
import torch

from pipeline.decoder import Flow


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

"""The fused description, by hand."""

import math

import torch

from pipeline.fusion_diff.anchor import FusedDescriptions, fused_description, towards

EAST, NORTH = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])


def test_half_way_between_two_directions():
    torch.testing.assert_close(fused_description(EAST, NORTH), torch.tensor([[math.sqrt(0.5), math.sqrt(0.5)]]))


def test_samples_are_drawn_towards_their_query_s_anchor():
    samples = torch.stack([EAST, NORTH], 1)  # one query, two samples
    drawn = towards(samples, NORTH, 0.25)
    torch.testing.assert_close(drawn[0, 0], torch.tensor([0.75, 0.25]) / math.hypot(0.75, 0.25))
    torch.testing.assert_close(drawn[0, 1], NORTH[0])
    assert towards(samples, NORTH, 0.0) is samples


def test_a_training_set_s_are_made_as_they_are_read():
    fused, descriptions = EAST.repeat(3, 1).half(), torch.cat([NORTH, EAST, -NORTH]).half()
    made = FusedDescriptions(fused, descriptions)
    assert len(made) == 3 and made.shape == (3, 2) and made.ndim == 2
    torch.testing.assert_close(
        made[torch.tensor([2, 1])], torch.tensor([[math.sqrt(0.5), -math.sqrt(0.5)], [1.0, 0.0]])
    )

import dataclasses
import math

import pytest
import torch

from pipeline.fusion_diff import Prior, PriorSizes
from pipeline.fusion_diff.layers import sincos_positions, timestep_frequencies
from tests.sections import profile


def count(*parts):
    """Parameters of modules or of parameters themselves."""
    return sum(
        p.numel() for part in parts for p in ([part] if isinstance(part, torch.nn.Parameter) else part.parameters())
    )


@pytest.fixture(scope="module")
def paper():
    with torch.device("meta"):
        return Prior(PriorSizes.from_params(profile("paper").prior, dim=1536, text_dim=4096, text_tokens=300))


def test_the_paper_profile_has_954_million_parameters(paper):
    assert count(paper) == 953_866_640
    assert len(paper.blocks) == 28 and paper.sizes.tokens == 256


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (lambda p: [p.project], 6_295_552),
        (lambda p: [p.out], 6_292_992),
        (lambda p: [p.patch], 19_584),
        (lambda p: [p.final_ada_ln], 2_656_512),
        (lambda p: [p.final], 18_448),
        (lambda p: [p.time], 1_624_320),
        (lambda p: [p.caption], 6_048_000),
        (lambda p: [p.null_text], 1_228_800),
        (lambda p: [p.blocks[0]], 33_202_944),
        (lambda p: [p.blocks[27]], 33_202_944),
        (lambda p: [p.blocks[0].ada_ln], 1152 * 9 * 1152 + 9 * 1152),
        (lambda p: [p.blocks[0].body.self_attention], 5_313_024),
        (lambda p: [p.blocks[0].body.cross_attention], 5_313_024),
        (lambda p: [p.blocks[0].body.feed_forward], 10_622_592),
        (lambda p: [p.blocks[0].body], 21_248_640),
    ],
)
def test_each_part_has_the_papers_size(paper, parts, expected):
    assert count(*parts(paper)) == expected


def test_a_fresh_prior_predicts_its_output_bias(sizes, inputs):
    noisy, step, states, mask, _ = inputs
    prior = Prior(sizes)
    for block in prior.blocks:
        assert not block.ada_ln.weight.any() and not block.ada_ln.bias.any()
    assert torch.equal(prior(noisy, step, states, mask), torch.zeros_like(noisy))


def test_fresh_blocks_are_the_identity(sizes, inputs):
    noisy, step, states, mask, _ = inputs
    prior = Prior(sizes)
    text = prior.text_keys_values(prior.text_context(states, mask, len(noisy)))
    states = prior.encode(prior.embed(noisy), prior.modulation(step), text)
    assert all(torch.equal(state, states[0]) for state in states)


def test_a_batch_equals_its_rows(prior, inputs):
    noisy, step, states, mask, _ = inputs
    together = prior(noisy, step, states, mask)
    for row in range(len(noisy)):
        length = int(mask[row].sum())
        alone = prior(noisy[row : row + 1], step[row : row + 1], states[row : row + 1, :length], None)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-5)


def test_padding_is_not_seen(prior, inputs):
    noisy, step, states, mask, _ = inputs
    other = states.masked_fill(~mask[..., None], 1e3)
    torch.testing.assert_close(prior(noisy, step, states, mask), prior(noisy, step, other, mask))


def test_rows_without_a_text_come_first_and_take_the_null_condition(prior, inputs):
    noisy, step, states, mask, _ = inputs
    mixed = prior(noisy, step, states[2:], mask[2:])
    torch.testing.assert_close(mixed[2:], prior(noisy[2:], step[2:], states[2:], mask[2:]))
    null = prior.null_text.detach().expand(2, -1, -1)
    torch.testing.assert_close(mixed[:2], prior(noisy[:2], step[:2], null))
    torch.testing.assert_close(mixed[:2], prior(noisy[:2], step[:2]))
    torch.testing.assert_close(mixed[:2], prior(noisy[:2], step[:2], states[:0], mask[:0]))


def test_text_step_and_noise_all_matter(prior, inputs):
    noisy, step, states, mask, _ = inputs
    base = prior(noisy, step, states, mask)
    for other in (
        prior(noisy + 1, step, states, mask),
        prior(noisy, step + 1, states, mask),
        prior(noisy, step, states + 1, mask),
    ):
        assert ((base - other).abs().amax(dim=1) > 1e-4).all()


def test_every_parameter_gets_a_gradient_with_and_without_dropped_rows(prior, inputs):
    noisy, step, states, mask, _ = inputs
    prior.train()
    for kept in (0, 2):
        prior.zero_grad(set_to_none=True)
        prior(noisy, step, states[kept:], mask[kept:]).square().sum().backward()
        assert all(parameter.grad is not None for parameter in prior.parameters())


def test_bfloat16_stays_close(prior, inputs):
    noisy, step, states, mask, _ = inputs
    full = prior(noisy, step, states, mask)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = prior(noisy, step, states, mask)
    whole = prior.to(torch.bfloat16)(noisy, step, states, mask)
    for other in (mixed, whole):
        assert other.dtype == torch.float32
        assert (other - full).norm() / full.norm() < 0.03


def test_positions_tell_every_patch_apart_and_are_not_stored(prior):
    positions = sincos_positions(4, 16)
    assert positions.shape == (16, 16) and torch.unique(positions, dim=0).shape[0] == 16
    assert positions[5, 1].item() == pytest.approx(math.sin(10_000.0 ** (-1 / 4)))
    assert "positions" not in prior.state_dict()


def test_timestep_features():
    features = timestep_frequencies(torch.tensor([0, 7]), 6)
    assert features.shape == (2, 6)
    assert features[0].tolist() == [1, 1, 1, 0, 0, 0]
    assert features[1, 0].item() == pytest.approx(math.cos(7))
    assert features[1, 4].item() == pytest.approx(math.sin(7 * 10_000 ** (-1 / 3)), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": 9}, "grid 9 is not a multiple of patch_size 2"),
        ({"heads": 5}, "width 32 is not a multiple of heads 5"),
        ({"width": 30, "heads": 2}, "width 30 is not a multiple of 4"),
        ({"depth": 3}, "depth 3 is odd"),
        ({"time_frequencies": 7}, "time_frequencies 7 is odd"),
        ({"dim": 0}, "dim = 0 must be at least 1"),
        ({"text_tokens": -1}, "text_tokens = -1"),
    ],
)
def test_impossible_sizes_are_refused_with_their_numbers(sizes, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(sizes, **change)


def test_wrong_shapes_are_refused(prior, inputs):
    noisy, step, states, mask, _ = inputs
    with pytest.raises(ValueError, match=r"noisy is \(5, 23\), expected \[B, 24\]"):
        prior(noisy[:, 1:], step, states, mask)
    with pytest.raises(ValueError, match=r"step is \(4,\)"):
        prior(noisy, step[1:], states, mask)
    with pytest.raises(ValueError, match="expected .B, T, 12."):
        prior(noisy, step, states[..., 1:], mask)
    with pytest.raises(ValueError, match="text mask is"):
        prior(noisy, step, states, mask[:, 1:])
    with pytest.raises(ValueError, match="5 texts for 3 rows"):
        prior(noisy[:3], step[:3], states, mask)

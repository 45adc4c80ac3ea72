"""The arithmetic by formula, against torch's own counter."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.fusion_diff import ControlledPrior, PriorSizes
from pipeline.fusion_diff.flops import adapter_flops, control_training_flops, prior_flops, prior_training_flops


def count(call) -> int:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize("tokens", [1, 6])
def test_forward_is_what_torch_counts(prior, adapter, sizes, tokens):
    noisy, step, states = torch.randn(3, sizes.dim), torch.zeros(3), torch.randn(3, tokens, sizes.text_dim)
    assert count(lambda: prior(noisy, step, states)) == pytest.approx(3 * prior_flops(sizes, tokens), rel=1e-6)
    both = count(lambda: ControlledPrior(prior, adapter)(noisy, step, states, None, noisy))
    assert both == pytest.approx(3 * (prior_flops(sizes, tokens) + adapter_flops(sizes, tokens)), rel=1e-6)


def test_a_training_step_is_nearly_three_forward_passes(prior, sizes):
    """The first layers hand no gradient on to their inputs, which is not worth a formula."""
    noisy, step, states = torch.randn(3, sizes.dim), torch.zeros(3), torch.randn(3, 6, sizes.text_dim)
    found = count(lambda: prior(noisy, step, states).sum().backward())
    assert found == pytest.approx(3 * prior_training_flops(sizes, 6), rel=0.03)


def test_a_control_step(prior, adapter, sizes):
    prior.requires_grad_(False)
    noisy, step, states = torch.randn(3, sizes.dim), torch.zeros(3), torch.randn(3, 6, sizes.text_dim)
    found = count(lambda: ControlledPrior(prior, adapter)(noisy, step, states, None, noisy).sum().backward())
    assert found == pytest.approx(3 * control_training_flops(sizes, 6), rel=0.06)


def test_the_papers_prior_needs_0_9_tera_operations_a_sample():
    paper = PriorSizes(
        dim=1536,
        channels=4,
        grid=32,
        patch_size=2,
        width=1152,
        heads=16,
        depth=28,
        ffn_ratio=4,
        time_frequencies=256,
        text_dim=4096,
        text_tokens=300,
    )
    assert prior_training_flops(paper, 120) == pytest.approx(0.89e12, rel=0.02)  # 387 TFLOP/s at 435 samples/s

import dataclasses

import pytest
import torch

from pipeline.fusion_diff import ControlAdapter, ControlledPrior, Prior, PriorSizes
from tests.sections import profile


def test_the_paper_profile_has_318_million_trainable_parameters():
    with torch.device("meta"):
        prior = Prior(PriorSizes.from_params(profile("paper").prior, dim=1536, text_dim=4096, text_tokens=300))
        model = ControlledPrior(prior, ControlAdapter(prior))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 317_847_168
    assert sum(p.numel() for p in model.adapter.bodies[0].parameters()) == 21_248_640
    assert len(model.adapter.zero_out) == 14
    assert sum(p.numel() for p in model.adapter.zero_in.parameters()) == 1536 * 1152 + 1152


def test_a_fresh_adapter_changes_nothing_bit_for_bit(prior, inputs):
    noisy, step, states, mask, control = inputs
    adapter = ControlAdapter(prior)
    for scale in (1.0, 0.3, 7.0):
        assert torch.equal(
            ControlledPrior(prior, adapter, scale)(noisy, step, states, mask, control), prior(noisy, step, states, mask)
        )


def test_zero_scale_changes_nothing_bit_for_bit(prior, adapter, inputs):
    noisy, step, states, mask, control = inputs
    assert torch.equal(
        ControlledPrior(prior, adapter, 0.0)(noisy, step, states, mask, control), prior(noisy, step, states, mask)
    )
    assert not torch.allclose(
        ControlledPrior(prior, adapter, 0.1)(noisy, step, states, mask, control), prior(noisy, step, states, mask)
    )


def test_copies_start_from_the_prior(prior):
    adapter = ControlAdapter(prior)
    assert len(adapter.bodies) == prior.sizes.depth // 2
    for body, block in zip(adapter.bodies, prior.blocks[: len(adapter.bodies)], strict=True):
        for name, parameter in body.named_parameters():
            original = block.body.get_parameter(name)
            assert torch.equal(parameter, original) and parameter.data_ptr() != original.data_ptr()
    assert not any("ada_ln" in name for name in adapter.state_dict())


def test_equation_6_by_hand(prior, adapter, inputs):
    """Two encoder and two decoder blocks, written out."""
    noisy, step, states, mask, control = inputs
    delta = 0.6
    modulation = prior.modulation(step)
    context = prior.text_context(states, mask, len(noisy))

    def frozen(number, hidden):
        block = prior.blocks[number - 1]
        return block(hidden, modulation.blocks[number - 1], block.body.cross_attention.keys_values(context))

    def copied(number, hidden):
        body = adapter.bodies[number - 1]
        return body(hidden, modulation.blocks[number - 1], body.cross_attention.keys_values(context))

    h0 = prior.embed(noisy)
    h1 = frozen(1, h0)
    h2 = frozen(2, h1)
    c0 = h0 + adapter.zero_in(control)[:, None]
    r1 = adapter.zero_out[0](copied(1, c0))
    r2 = adapter.zero_out[1](copied(2, h1 + r1))
    hidden = frozen(3, h2 + delta * r2)
    hidden = frozen(4, hidden + delta * r1)
    expected = prior.output(hidden, modulation)
    torch.testing.assert_close(ControlledPrior(prior, adapter, delta)(noisy, step, states, mask, control), expected)


def test_only_the_adapter_gets_gradients(sizes, randomise, inputs):
    noisy, step, states, mask, control = inputs
    prior = randomise(Prior(sizes))
    model = ControlledPrior(prior, randomise(ControlAdapter(prior))).train()
    model(noisy, step, states[1:], mask[1:], control).square().sum().backward()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.prior.parameters())
    for name, parameter in model.adapter.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.any() or name.endswith("key.bias"), name  # a softmax does not see its keys' bias
    assert not model.prior.training and model.adapter.training


def test_a_fresh_adapter_still_learns(prior, inputs):
    noisy, step, states, mask, control = inputs
    model = ControlledPrior(prior, ControlAdapter(prior))
    model(noisy, step, states, mask, control).square().sum().backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in model.adapter.zero_out)


def test_an_adapter_of_a_frozen_prior_is_trainable(prior):
    adapter = ControlAdapter(prior.requires_grad_(False))
    assert all(parameter.requires_grad for parameter in adapter.parameters())


def test_wrong_shapes_and_sizes_are_refused(prior, adapter, inputs):
    noisy, step, states, mask, control = inputs
    with pytest.raises(ValueError, match=r"\(5, 23\) does not match noisy \(5, 24\)"):
        ControlledPrior(prior, adapter)(noisy, step, states, mask, control[:, 1:])
    with pytest.raises(ValueError, match=r"expected \[C, 24\]"):
        adapter.shift(control[:, 1:])
    with pytest.raises(ValueError, match="the adapter was built for"):
        ControlledPrior(Prior(dataclasses.replace(prior.sizes, depth=2)), adapter)

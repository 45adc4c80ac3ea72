"""A T5 over packed texts, by Triton's interpreter, against the model of `transformers` one text at a time."""

import copy
import gc
import weakref

import pytest
import torch
from transformers import T5Config, T5EncoderModel

pytest.importorskip("triton")

from pipeline.gpu.t5 import PackedT5, Weight, in_turn
from pipeline.gpu.texts import can_pack

SIZES = {
    "vocab_size": 50,
    "d_model": 48,
    "d_kv": 16,
    "d_ff": 80,
    "num_layers": 3,
    "num_heads": 3,
    "relative_attention_max_distance": 20,
    "feed_forward_proj": "gated-gelu",
    "decoder_start_token_id": 0,
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def model() -> T5EncoderModel:
    torch.manual_seed(0)
    model = T5EncoderModel(T5Config(**SIZES)).eval().to(DEVICE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape).mul(0.3) + (parameter.ndim == 1))
    return model


@pytest.fixture
def tokens() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, 50, (length,), generator=generator).tolist() for length in (5, 70, 1, 33)]


@torch.no_grad()
def one_by_one(model, tokens) -> torch.Tensor:
    return torch.cat([model(torch.tensor([ids], device=DEVICE)).last_hidden_state[0] for ids in tokens])


def test_packed_texts_have_the_states_of_texts_by_themselves(model, tokens):
    expected = one_by_one(model, tokens)
    packed = PackedT5(copy.deepcopy(model), 90, fp8=False, at_once=1000)
    found = packed(tokens)
    assert found.shape == (109, 48)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(packed(tokens), found)
    torch.testing.assert_close(packed(tokens[::-1])[:33], expected[-33:], atol=1e-4, rtol=1e-4)


def test_texts_go_through_in_turn_where_they_are_many(model, tokens):
    """Of 5, 70, 1 and 33 tokens, at most 75 at once: 5 + 70, then 1 + 33. A text that is too long goes alone."""
    assert [len(part) for part in in_turn(tokens, 75)] == [2, 2]
    assert [len(part) for part in in_turn(tokens, 40)] == [1, 1, 2]
    found = PackedT5(copy.deepcopy(model), 90, fp8=False, at_once=40)(tokens)
    torch.testing.assert_close(found, one_by_one(model, tokens), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fp8", [False, True])
def test_a_packed_encoder_keeps_no_weight_twice(model, fp8):
    given = [weakref.ref(parameter) for parameter in model.encoder.block.parameters() if parameter.ndim == 2]
    packed = PackedT5(model, 90, fp8, 1000)
    weights = [part for layer in packed.layers for part in layer if isinstance(part, Weight)]
    assert len(weights) == 4 * SIZES["num_layers"] and not any(weight.values.requires_grad for weight in weights)
    gc.collect()
    assert not any(one() is not None for one in given)


def test_only_what_is_computed_alike_is_packed(model):
    assert can_pack(model)
    for changes in ({"feed_forward_proj": "relu"}, {"d_kv": 24}, {"feed_forward_proj": "gated-silu"}):
        assert not can_pack(T5EncoderModel(T5Config(**{**SIZES, **changes})))
    assert not can_pack(torch.nn.Linear(1, 1))


def test_8_bit_products_need_sizes_that_fit():
    with pytest.raises(ValueError, match="text_encoder.dtype fp8: layers of 48 and 84 numbers"):
        PackedT5(T5EncoderModel(T5Config(**{**SIZES, "d_ff": 84})), 90, fp8=True, at_once=1000)

"""A word among the words of a text, against the same text written out."""

import pytest
import torch

from pipeline.config import Pic2WordParams
from pipeline.encoders.dual.pretrained import TransformersEncoder
from pipeline.peers.pseudo_word import Mapper, PseudoWordPeer, encode_prompts
from tests.encoders.dual.random_models import save_clip, save_siglip
from tests.peers.conftest import always
from tests.sections import section


def plain(encoder, texts):
    return encoder.encode_text(encoder.tokenize(texts))


def test_the_placeholders_own_word_changes_nothing(encoder, word_of):
    texts = ["*", "a photo of *", "a * with a red hat"]
    assert torch.equal(encode_prompts(encoder, texts, word_of("*", "*", "*")), plain(encoder, texts))


def test_another_word_stands_for_itself(encoder, word_of):
    found = encode_prompts(encoder, ["a photo of *", "* with a hat"], word_of("cat", "dog"))
    assert torch.equal(found, plain(encoder, ["a photo of cat", "dog with a hat"]))


def test_a_word_may_stand_in_several_places(encoder, word_of):
    assert torch.equal(encode_prompts(encoder, ["* with *"], word_of("cat")), plain(encoder, ["cat with cat"]))


def test_many_short_texts_among_long_ones_keep_their_order(encoder, word_of):
    """The plain path encodes 64 short texts apart; words stay with their texts all the same."""
    names = ["cat", "dog", "ball"] * 24
    texts = ["a *" if number % 9 else "a * with a red blue red blue hat" for number in range(72)]
    written = [text.replace("*", name) for text, name in zip(texts, names, strict=True)]
    torch.testing.assert_close(encode_prompts(encoder, texts, word_of(*names)), plain(encoder, written))


def test_gradients_reach_the_word_and_nothing_stays_hooked(encoder, word_of):
    words = word_of("cat").clone().requires_grad_(True)
    encode_prompts(encoder, ["a *"], words).sum().backward()
    assert words.grad.abs().sum() > 0
    assert not encoder.word_embedding._forward_hooks


@pytest.mark.parametrize("save", [save_clip, save_siglip])
def test_encoders_of_transformers(save, tmp_path):
    encoder = TransformersEncoder(str(save(tmp_path / "model"))).eval()
    table = encoder.word_embedding.weight
    fox = encoder.tokenize(["fox"])[0, 0]
    with torch.inference_mode():
        found = encode_prompts(encoder, ["red * on snow"], table[fox][None])
        torch.testing.assert_close(found, plain(encoder, ["red fox on snow"]))


def test_a_placeholder_that_is_cut_off_is_named(encoder, word_of):
    with pytest.raises(ValueError, match=r"no \* by itself among its first 12 tokens"):
        encode_prompts(encoder, ["a " * 12 + "*"], word_of("cat"))


def test_a_query_is_its_prompt_with_the_reference_s_word(encoder, word_of):
    params = section(Pic2WordParams, query="a photo of * {modification}")
    peer = always(PseudoWordPeer(encoder, params), word_of("cat", "ball"))
    found = peer.compose(torch.zeros(2, encoder.dim), ["with a * hat", "red"])
    assert torch.equal(found, plain(encoder, ["a photo of cat with a hat", "a photo of ball red"]))


def test_a_peer_stores_its_mapper_alone(encoder):
    peer = PseudoWordPeer(encoder, section(Pic2WordParams))
    assert set(peer.state_dict()) == {f"mapper.layers.{n}.{name}" for n in range(3) for name in ("weight", "bias")}


def test_dropout_is_the_generators():
    mapper = Mapper(6, 5, section(Pic2WordParams, dropout=0.5, layers=2, hidden=400))
    features = torch.randn(8, 6)
    draws = [mapper(features, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(mapper(features), mapper(features))
    mean = torch.stack([mapper(features, torch.Generator().manual_seed(seed)) for seed in range(400)]).mean(0)
    torch.testing.assert_close(mean, mapper(features), atol=0.1, rtol=0.1)

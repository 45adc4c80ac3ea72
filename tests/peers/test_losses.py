"""The peers' losses against numbers by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.config import Pic2WordParams, SearleParams
from pipeline.config.peers import InversionParams
from pipeline.peers.concepts import Concepts, with_place
from pipeline.peers.lincir import LinCir, LinCirTask, without_keywords
from pipeline.peers.losses import contrastive, cosine_distance
from pipeline.peers.pic2word import Pic2Word, Pic2WordTask
from pipeline.peers.searle import DistillationTask, InversionTask, Searle, Words
from tests.peers.conftest import always
from tests.sections import plain_params, section

BOTH = torch.tensor([0, 1])


def draw():
    return torch.Generator().manual_seed(0)


def test_contrastive_by_hand():
    """Two pairs: cosines 1 and 0.6 of the pairs themselves, 0 and 0.8 across."""
    left, right = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    rows = [math.log(1 + math.exp((0.8 - 1.0) / 0.5)), math.log(1 + math.exp((0.0 - 0.6) / 0.5))]
    columns = [math.log(1 + math.exp((0.0 - 1.0) / 0.5)), math.log(1 + math.exp((0.8 - 0.6) / 0.5))]
    assert contrastive(left, right, 0.5).item() == pytest.approx((sum(rows) / 2 + sum(columns) / 2) / 2, abs=1e-6)


def test_cosine_distance_by_hand():
    found = cosine_distance(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [0.8, 0.6]]))
    assert found.item() == pytest.approx((0.0 + 0.4) / 2)


def test_pic2word_compares_images_with_their_prompts(encoder, word_of):
    peer = always(Pic2Word(encoder, plain_params().peers), word_of("cat", "dog"))
    peer.params, peer.temperature = section(Pic2WordParams, prompt="a photo of *"), 0.1
    images = F.normalize(torch.randn(2, encoder.dim), dim=-1)
    found, _ = Pic2WordTask(peer, images).loss(peer, BOTH, draw(), "cpu")
    texts = encoder.encode_text(encoder.tokenize(["a photo of cat", "a photo of dog"]))
    logits = (images @ texts.T / 0.1).exp()
    expected = -(logits.diag() / logits.sum(1)).log().mean() / 2 - (logits.diag() / logits.sum(0)).log().mean() / 2
    torch.testing.assert_close(found, expected)
    assert torch.autograd.grad(found, peer.mapper.layers[-1].bias)[0].shape == (32,)


@pytest.mark.parametrize(
    ("caption", "keywords", "masked"),
    [
        ("red car on a road", ["red car", "road"], "* on a *"),
        ("a car in a car park", ["car", "car park"], "a * in a *"),
        ("carpet (old)", ["car"], "*"),
        ("waving", [], "*"),
        ("5 * 5 cards", ["cards"], "5 5 *"),
    ],
)
def test_keywords_are_masked(caption, keywords, masked):
    assert without_keywords(caption, keywords) == masked


def test_lincir_is_the_squared_distance_of_two_captions(encoder, word_of):
    captions = ["red ball", "blue cat"]
    features = encoder.encode_text(encoder.tokenize(captions))
    peer = always(LinCir(encoder, plain_params().peers), word_of("ball", "dog"))
    task = LinCirTask(peer, captions, [["ball"], ["cat"]], features)
    found, _ = task.loss(peer, BOTH, draw(), "cpu")
    other = encoder.encode_text(encoder.tokenize(["red ball", "blue dog"]))  # the first word is right
    torch.testing.assert_close(found, (features - other)[1].square().sum() / (2 * encoder.dim))


def test_lincirs_noise_is_bounded_by_its_parameter(encoder):
    read = []
    peer = LinCir(encoder, plain_params(peers={"lincir": {"noise": 0.5}}).peers)
    peer.mapper.forward = lambda features, generator: read.append(features) or torch.zeros(len(features), 32)
    features = torch.zeros(2000, encoder.dim)
    task = LinCirTask(peer, ["cat"] * 2000, [["cat"]] * 2000, features)
    task.loss(peer, torch.arange(2000), draw(), "cpu")
    deviations = read[0].std(1) / 0.5  # about uniform in [0, 1], over 24 dimensions each
    assert 0.45 < deviations.mean() < 0.55 and deviations.min() < 0.05 and 0.8 < deviations.max() < 1.7


def concepts_of(encoder):
    def features(texts):
        return encoder.encode_text(encoder.tokenize(texts))

    return Concepts(encoder, ["red ball", "a cat with a hat"], [["ball"], ["cat", "hat"]], features)


def test_concepts_are_nouns_with_the_captions_that_they_are_in(encoder, word_of):
    concepts = concepts_of(encoder)
    assert concepts.names == ["ball", "cat", "hat"] and with_place("a cat with a hat", "hat") == "a cat with a *"
    images = encoder.encode_text(encoder.tokenize(["hat", "ball"]))
    assert concepts.nearest(images, 1).tolist() == [[2], [0]] and concepts.nearest(images, 15).shape == (2, 3)
    one_each = torch.tensor([[2], [0]])
    assert concepts.loss(word_of("hat", "ball"), one_each, draw()).item() == pytest.approx(0.0, abs=1e-6)
    texts = encoder.encode_text(encoder.tokenize(["a cat with a hat", "a cat with a ball"]))
    expected = (1 - texts[0] @ texts[1]) / 2  # the second word is right
    assert concepts.loss(word_of("ball", "ball"), one_each, draw()).item() == pytest.approx(expected.item(), abs=1e-6)


def searle(encoder, **changes):
    return section(SearleParams, prompt="a photo of *", **changes)


def test_inversion_by_hand(encoder, word_of):
    concepts = concepts_of(encoder)
    own = section(InversionParams, concepts=1, concept_weight=0.5)
    images = encoder.encode_text(encoder.tokenize(["hat", "ball"]))
    words = Words(encoder, 2)
    words.table.data = word_of("hat", "cat").clone()
    task = InversionTask(words, searle(encoder, inversion=own), images, concepts)
    found, parts = task.loss(words, BOTH, draw(), "cpu")
    prompts = encoder.encode_text(encoder.tokenize(["a photo of hat", "a photo of cat"]))
    image = (1 - (prompts * images).sum(1)).mean()
    red = encoder.encode_text(encoder.tokenize(["red ball", "red cat"]))
    concept = (1 - red[0] @ red[1]) / 2
    torch.testing.assert_close(found, image + 0.5 * concept)
    torch.testing.assert_close(parts["image"], image)
    assert torch.autograd.grad(found, words.table)[0].abs().sum(1).min() > 0


def test_distillation_by_hand(encoder, word_of):
    concepts = concepts_of(encoder)
    peer = Searle(encoder, plain_params().peers)
    peer.params = searle(encoder, temperature=0.25, concept_weight=0.0, inversion=section(InversionParams, concepts=1))
    always(peer, word_of("hat", "cat"))
    images, targets = torch.randn(2, encoder.dim), word_of("hat", "dog")
    found, _ = DistillationTask(peer, images, targets, concepts).loss(peer, BOTH, draw(), "cpu")
    torch.testing.assert_close(found, contrastive(word_of("hat", "cat"), targets, 0.25))

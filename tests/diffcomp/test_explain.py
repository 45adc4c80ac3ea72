"""The images as functions of an image and a text: the model's own maps and similarities."""

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config import DiffCompParams
from pipeline.diffcomp import DiffComp
from pipeline.diffcomp.explain import (
    heat_map,
    image_text_similarities,
    kept_of_reference,
    masking_probabilities,
    pair_similarities,
)
from pipeline.encoders.image_source import square_pixels
from tests.sections import section

TEXTS = ["a red ball", "a cat with a hat", "a dog"]


@pytest.fixture
def model(make_encoder):
    return DiffComp(
        make_encoder(), section(DiffCompParams, image_layers=1, text_layers=1, lambda_base=0.4, eta=0.6)
    ).eval()


@pytest.fixture
def images(pixels):
    return [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in pixels[:3]]


def test_masking_follows_the_text_and_its_phrases(model, images):
    values = masking_probabilities(model, images[0], "a cat with a hat", ["a cat", "a hat"])
    assert values.shape == (4, 4)
    encoder = model.encoder
    local = model.reference(encoder.normalise(square_pixels(images[0], 32)[None])).super_patches
    similarity = (encoder.encode_text(encoder.tokenize(["a cat", "a hat"])) @ local[0].T).detach().numpy()  # S [2, 4]
    omega = np.exp(similarity.mean(1) / model.params.saliency_temperature)
    scores = omega @ similarity / omega.sum()
    expected = 1 / (1 + np.exp(-(model.params.gamma * scores + model.b.item())))
    np.testing.assert_allclose(values[::2, ::2].flatten(), expected, atol=1e-5)
    whole = masking_probabilities(model, images[0], "a cat with a hat")
    assert np.array_equal(whole, masking_probabilities(model, images[0], "", ["a cat with a hat"])) and not np.allclose(
        whole, values
    )


def test_less_is_kept_where_the_reference_disagrees(model, images):
    kept = kept_of_reference(model, images[1], TEXTS[1])
    encoder = model.encoder
    local = model.reference(encoder.normalise(square_pixels(images[1], 32)[None])).super_patches
    similarity = (local @ encoder.encode_text(encoder.tokenize([TEXTS[1]]))[0])[0].detach().numpy()
    expected = 1 - 0.4 * (1 - np.exp(similarity) / np.exp(similarity).max())
    np.testing.assert_allclose(kept[::2, ::2].flatten(), expected, atol=1e-5)


def test_similarities_of_pairs(model, images):
    aligned, masked = pair_similarities(model, images, TEXTS, [["a red ball"], [], ["a dog"]], seed=3)
    np.testing.assert_allclose(aligned, image_text_similarities(model, images, TEXTS, batch_size=2), atol=1e-6)
    encoder = model.encoder
    with torch.no_grad():
        looks = encoder.encode_image(encoder.normalise(torch.stack([square_pixels(image, 32) for image in images])))
        expected = torch.nn.functional.cosine_similarity(looks, encoder.encode_text(encoder.tokenize(TEXTS)))
    np.testing.assert_allclose(aligned, expected, atol=1e-5)
    assert masked.shape == (3,) and not np.allclose(aligned, masked)
    again = pair_similarities(model, images, TEXTS, [["a red ball"], [], ["a dog"]], seed=3)
    assert np.array_equal(masked, again[1])
    model.params.eta = 0.0
    model.masking = "random"
    np.testing.assert_allclose(*pair_similarities(model, images, TEXTS), atol=1e-6)  # nothing is masked


def test_a_heat_map_is_brightest_where_the_value_is_highest():
    values = np.array([[0.1, 0.2], [0.3, 0.9]])
    image = Image.new("RGB", (30, 60), "white")
    lights = np.array(heat_map(image, values, 64).convert("L").resize((2, 2), Image.Resampling.BOX), dtype=float)
    assert np.array_equal(lights.flatten().argsort(), values.flatten().argsort())
    assert np.array_equal(heat_map(image, values, 8, (0.1, 0.9)), heat_map(image, values, 8))
    assert not np.array_equal(heat_map(image, values, 8, (0.0, 1.0)), heat_map(image, values, 8))

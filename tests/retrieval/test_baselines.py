import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.retrieval.baselines import image_only, image_text, slerp, text_only

vectors = arrays(np.float64, (3, 5), elements=st.floats(-1, 1)).filter(
    lambda a: (np.linalg.norm(a, axis=1) > 0.1).all()
)
weights = st.floats(0, 1)


def unit(a):
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


@given(vectors, vectors, weights)
def test_compositions_are_finite_and_of_unit_length(image, text, weight):
    for compose in (image_only, text_only, image_text, slerp):
        assert np.linalg.norm(compose(unit(image), unit(text), weight), axis=1) == pytest.approx(1, abs=1e-6)


@given(vectors, vectors, weights)
def test_slerp_is_the_textbook_formula(image, text, weight):
    image, text = unit(image), unit(text)
    composed = slerp(image, text, weight)
    for row in range(3):
        cosine = float(np.clip(image[row] @ text[row], -1, 1))
        if abs(cosine) > 0.9999:
            continue
        angle = math.acos(cosine)
        expected = (math.sin((1 - weight) * angle) * image[row] + math.sin(weight * angle) * text[row]) / math.sin(
            angle
        )
        assert composed[row] == pytest.approx(expected, abs=1e-6)


@given(vectors, weights)
def test_slerp_of_parallel_and_opposite_vectors(image, weight):
    image = unit(image)
    assert slerp(image, image, weight) == pytest.approx(image, abs=1e-6)
    turned = slerp(image, -image, weight)
    assert (turned * image).sum(axis=1) == pytest.approx(math.cos(weight * math.pi), abs=1e-6)


def test_ends_and_dtypes():
    image, text = unit(np.eye(3, dtype=np.float32)), unit(np.ones((3, 3), dtype=np.float32))
    for compose in (image_text, slerp):
        assert compose(image, text, 0.0) == pytest.approx(image, abs=1e-6)
        assert compose(image, text, 1.0) == pytest.approx(text, abs=1e-6)
        assert compose(image, text, 0.3).dtype == np.float32
    assert np.array_equal(image_text(image, -image, 0.5), image)
    assert np.array_equal(image_only(image, text), image) and np.array_equal(text_only(image, text), text)

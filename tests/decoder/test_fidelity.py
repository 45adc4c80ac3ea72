import numpy as np
import pytest

from pipeline.decoder.fidelity import fidelity


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_a_perfect_decoder_finds_every_source():
    random = np.random.default_rng(0)
    z, training = unit(random.normal(size=(400, 16))), unit(random.normal(size=(50, 16)))
    found = fidelity(z, z, training, seed=0)
    assert found["decoded"] == {"cosine": pytest.approx(1.0), "R@1": 100.0, "R@10": 100.0}
    assert found["shuffled"]["R@10"] == pytest.approx(2.5, abs=2.5)  # 10 of 400 by chance
    nearest = training[[max(range(50), key=lambda row: one @ training[row]) for one in z]]
    cosines = [one @ other for one, other in zip(z, nearest, strict=True)]
    assert found["nearest_training_image"]["cosine"] == pytest.approx(np.mean(cosines))


def test_recall_counts_the_sources_that_score_more():
    z = np.eye(20)
    decoded = np.eye(20)
    decoded[0] = unit(np.linspace(1.0, 2.0, 20)[None])[0]  # all others score more than the first
    decoded[1] = unit((np.eye(20)[1] + 1.1 * np.eye(20)[5])[None])[0]  # one does
    found = fidelity(decoded, z, z, seed=0)["decoded"]
    assert (found["R@1"], found["R@10"]) == (90.0, 95.0)

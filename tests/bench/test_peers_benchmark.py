"""Scores of peers: exact search without the reference."""

import numpy as np

from bench.peers import Gallery
from pipeline.retrieval.queries import Query


def test_the_reference_is_no_answer_and_order_decides():
    gallery = Gallery(["a", "b", "c"], np.eye(3, dtype=np.float32))
    queries = [Query("1", "a", ("x",), ("b",)), Query("2", "c", ("x",), ("a",))]
    vectors = np.array([[0.9, 0.4, 0.1], [0.1, 0.5, 0.9]], dtype=np.float32)  # b is next for both
    found = gallery.hits(vectors, queries)
    assert found[1].tolist() == [1.0, 0.0] and found[5].tolist() == [1.0, 1.0]
    assert gallery.of(queries).tolist() == [[1, 0, 0], [0, 0, 1]]

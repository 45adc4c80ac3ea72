"""Running families: wordings, and descriptions that are passed on."""

import numpy as np
import pytest

from pipeline.query.driver import answer_all
from pipeline.query.interface import NO_CONTROLS, Family, Method, QueryVectors
from pipeline.retrieval import Query

DIM = 4


class Counting(Family):
    """One vector a query, or two: the length of the wording along its own axis."""

    def __init__(self, method: str, hypotheses: int = 1, describes: bool = False):
        self.methods = {method: Method(method, method, space="fused", family="counting")}
        self.spaces = {}
        self.method, self.hypotheses, self.describes = method, hypotheses, describes
        self.asked, self.given = [], []

    def answer(self, queries, images, controls=NO_CONTROLS, methods=None, descriptions=None):
        self.asked.append([query.text for query in queries])
        self.given.append(descriptions)
        vectors = np.array([[len(query.text)] * DIM for query in queries], np.float32)
        if self.hypotheses == 2:
            vectors = np.stack([vectors, -vectors], axis=1)
        own = [[f"described {query.text}"] for query in queries] if self.describes else None
        return {self.method: QueryVectors("fused", vectors, own)}


@pytest.mark.parametrize("hypotheses", [1, 2])
def test_wordings_are_hypotheses_of_one_query(hypotheses):
    query = Query("q", "r", ("a and b",), ("t",), alternatives=("bb and a",))
    families = [Counting("one", hypotheses), Counting("other", hypotheses)]
    found = answer_all(families, [query], None)
    assert families[0].asked == families[1].asked == [["a and b"], ["bb and a"]] and list(found) == ["one", "other"]
    lengths = [7, 8] if hypotheses == 1 else [7, -7, 8, -8]
    assert found["one"].vectors[0, :, 0].tolist() == lengths


def test_one_wording_stays_one_vector():
    plain = Query("q", "r", ("a and b",), ("t",))
    assert answer_all([Counting("one")], [plain], None)["one"].vectors.shape == (1, DIM)


def test_descriptions_are_passed_on_wording_by_wording():
    query = Query("q", "r", ("a and b",), ("t",), alternatives=("bb and a",))
    before, describer, after = Counting("before"), Counting("describes", describes=True), Counting("after")
    found = answer_all([before, describer, after], [query], None)
    assert before.given == describer.given == [None, None]
    assert after.given == [[["described a and b"]], [["described bb and a"]]]
    assert found["describes"].descriptions == [["described a and b"]] and found["after"].descriptions is None

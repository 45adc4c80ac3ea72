"""The copy on a GPU: with a stand-in for FAISS's GPU side everywhere, with the real one where there is one."""

from types import SimpleNamespace

import faiss
import numpy as np
import pytest

from pipeline.config import IndexParams
from pipeline.retrieval import Index, kinds
from tests.sections import section

WITH_GPU = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


VECTORS = unit(np.random.default_rng(0), 2500, 16)
QUERIES = unit(np.random.default_rng(1), 20, 16)


@pytest.fixture(autouse=True)
def _few_vectors_and_one_thread(monkeypatch):
    monkeypatch.setattr(kinds, "TRAIN_PER_CENTROID", 4)
    faiss.omp_set_num_threads(1)


def index_of(device, kind, **options):
    params = section(IndexParams, kind=kind, **options)
    filled = kinds.new_index(params, 16, len(VECTORS), lambda size: VECTORS[:size])
    filled.add(VECTORS)
    return Index(filled, [str(row) for row in range(len(VECTORS))], {"kind": kind, "device": device})


class Card:
    """FAISS's GPU interface over a CPU: it keeps what was copied and refuses to select too many."""

    def __init__(self, monkeypatch, refuses=False):
        self.copied, self.searches, self.refuses = [], [], refuses
        monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "resources", raising=False)
        monkeypatch.setattr(faiss, "GpuClonerOptions", SimpleNamespace, raising=False)
        monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
        monkeypatch.setattr(faiss, "index_cpu_to_gpu", self.copy, raising=False)

    def copy(self, resources, device, index, options):
        if self.refuses:
            raise RuntimeError("Error: 'IVFPQ code size not supported'")
        self.copied.append((faiss.downcast_index(index), options.useFloat16))
        return SimpleNamespace(search=self.search)

    def search(self, queries, count):
        assert count <= kinds.GPU_MOST
        self.searches.append(count)
        return self.copied[-1][0].search(queries, count)


def test_flat_answers_the_same_from_a_gpu(monkeypatch):
    expected = index_of("cpu", "flat").search(QUERIES, 10)
    card = Card(monkeypatch)
    assert index_of("cpu", "flat").search(QUERIES, 10) == expected and not card.copied
    index = index_of("auto", "flat")
    assert index.search(QUERIES, 10) == expected
    [(copied, rounded)] = card.copied
    assert isinstance(copied, faiss.IndexFlat) and not rounded and card.searches == [27]
    assert [len(row) for row in index.search(QUERIES[:2], 2400)[0]] == [2400, 2400] and card.searches == [27], (
        "too many for a GPU"
    )


def test_ivfpq_searches_its_codes_on_a_gpu_and_scores_exactly(monkeypatch):
    card = Card(monkeypatch)
    index = index_of("auto", "ivfpq", pq_bits=8, pq_parts=8, nlist=16, nprobe=16, refine_factor=8)
    ids, scores = index.search(QUERIES, 10)
    [(copied, rounded)] = card.copied
    assert isinstance(copied, faiss.IndexIVFPQ) and rounded and card.searches == [27 * 8]
    exact = np.argsort(-(QUERIES @ VECTORS.T), axis=1)[:, :10]
    assert np.mean([len(set(map(int, ids[row])) & set(exact[row])) / 10 for row in range(20)]) > 0.95
    assert np.array_equal(scores[0], index.scores_for(QUERIES[0], ids[0]))


@pytest.mark.parametrize(("kind", "options"), [("hnsw", {}), ("flat", {"storage": "float16"})])
def test_what_a_gpu_has_no_form_of_stays(monkeypatch, kind, options):
    card = Card(monkeypatch)
    assert len(index_of("auto", kind, **options).search(QUERIES[:1], 5)[0][0]) == 5
    assert not card.copied


def test_sizes_that_a_gpu_refuses_stay(monkeypatch):
    Card(monkeypatch, refuses=True)
    index = index_of("auto", "ivfpq", nlist=16, nprobe=16)
    assert len(index.search(QUERIES[:1], 5)[0][0]) == 5


@pytest.mark.skipif(not WITH_GPU, reason="this FAISS sees no GPU")
@pytest.mark.parametrize(
    ("kind", "options"), [("flat", {}), ("ivfpq", {"pq_bits": 8, "pq_parts": 8, "nlist": 16, "nprobe": 16})]
)
def test_a_real_gpu_answers_as_the_cpu_does(kind, options):
    there, here = index_of("auto", kind, **options), index_of("cpu", kind, **options)
    assert there._on_gpu is not None
    found, expected = there.search(QUERIES, 10)[0], here.search(QUERIES, 10)[0]
    agree = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, expected, strict=True)])
    assert agree == 1.0 if kind == "flat" else agree > 0.95

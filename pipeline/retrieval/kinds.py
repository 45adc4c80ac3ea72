"""FAISS's side of each kind of index: how it is made, what a search may cost, and its copy on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from pipeline.artifacts import ArtifactError
from pipeline.config import IndexParams, ParameterError

_FAISS: Any = faiss
"""Its classes take keywords and arrays that their stubs do not know."""

TRAIN_PER_LIST = 64
TRAIN_PER_CENTROID = 39
"""FAISS's own lower limit for a codebook worth having."""
DIMENSIONS_A_PART = {4: 4, 8: 16}
PROBED_SHARE, PROBED_LEAST = 0.15, 8

SCORED_MOST = 2_000
"""So many rows that a filter allows are scored one by one, whatever the kind of index."""
GPU_MOST = 2048
"""FAISS selects at most so many candidates on a GPU."""


def new_index(params: IndexParams, dim: int, rows: int, sample: Callable[[int], np.ndarray]) -> faiss.Index:
    """An empty index, trained where its kind needs it.

    Args:
        params: The kind and its sizes.
        dim: Numbers a vector.
        rows: How many unit vectors the index will hold.
        sample: Gives at most n of them, [n, dim]; only `ivfpq` asks for them.

    Raises:
        ArtifactError: The gallery is too small for the kind.
        ParameterError: A size does not fit the vectors.
    """
    index: Any
    if params.kind == "ivfpq":
        index = _new_ivfpq(params, dim, rows)
        if params.pq_bits == 8 and (lists := inverted_lists(index)) is not None:
            # Most of the training's time, for a kind of search that is not used.
            lists.do_polysemous_training = False
        index.train(sample(params.train_rows))
    elif params.kind == "hnsw":
        index = _from_factory(dim, f"HNSW{params.hnsw_m}", "Flat" if params.storage == "float32" else "SQfp16")
        index.hnsw.efConstruction = params.ef_construction
    else:
        index = faiss.IndexFlatIP(dim) if params.storage == "float32" else _from_factory(dim, "SQfp16")
    limit_search(index, params.ef_search, params.nprobe or _probed(index), params.refine_factor)
    return index


def limit_search(
    index: faiss.Index, ef_search: int | None = None, nprobe: int | None = None, refine_factor: int | None = None
) -> None:
    """Set how far a search looks: each is set where the index has it, and None leaves it."""
    if ef_search is not None and hasattr(index, "hnsw"):
        index.hnsw.efSearch = ef_search
    if refine_factor is not None and hasattr(index, "k_factor"):
        index.k_factor = refine_factor
    if nprobe is not None and (ivf := inverted_lists(index)) is not None:
        ivf.nprobe = min(nprobe, ivf.nlist)


def inverted_lists(index: faiss.Index) -> Any:
    """The IVF part of an index, of its own class; None where it has none."""
    ivf = faiss.try_extract_index_ivf(index)
    return None if ivf is None else faiss.downcast_index(ivf)


def search_among(
    index: faiss.Index, queries: np.ndarray, count: int, among: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The best of some of an index's rows.

    Args:
        index: Of any kind.
        queries: float32 [Q, d].
        count: How many are wanted.
        among: bool [rows], true where a row may be returned.

    Returns:
        Scores [Q, n] and positions [Q, n] (-1: none). Where few rows may be returned, these are all of them, scored
        exactly: a graph whose nodes are mostly left out leads nowhere.
    """
    allowed = np.flatnonzero(among)
    if len(allowed) <= max(count, SCORED_MOST):
        scores = queries @ index.reconstruct_batch(allowed).T
        return scores, np.broadcast_to(allowed, scores.shape)
    selector = _FAISS.IDSelectorBitmap(np.packbits(among, bitorder="little"))
    return index.search(queries, count, params=_parameters(index, selector))


def _parameters(index: faiss.Index, selector: faiss.IDSelector) -> faiss.SearchParameters:
    """What a search of this index may cost, with a selection of its rows."""
    if (ivf := inverted_lists(index)) is not None:
        lists = _FAISS.SearchParametersIVF(sel=selector, nprobe=ivf.nprobe)
        if not hasattr(index, "k_factor"):
            return lists
        return _FAISS.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=lists)
    if hasattr(index, "hnsw"):
        return _FAISS.SearchParametersHNSW(sel=selector, efSearch=index.hnsw.efSearch)
    return _FAISS.SearchParameters(sel=selector)


def gpu_copy(index: faiss.Index) -> faiss.Index | None:
    """What of the index FAISS can search on a GPU here: exact inner products, or IVF-PQ without its refinement.

    None where this FAISS has no GPU, or no form of this index on it (HNSW, float16, four bits a part).
    """
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        return None
    if not isinstance(index, faiss.IndexFlat) and inverted_lists(index) is None:
        return None
    options = faiss.GpuClonerOptions()
    options.useFloat16 = inverted_lists(index) is not None  # its lookup tables, which must fit the GPU's shared memory
    try:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, getattr(index, "base_index", index), options)
    except RuntimeError:  # what FAISS raises for sizes that its GPU code does not have
        return None


def _new_ivfpq(params: IndexParams, dim: int, rows: int) -> faiss.Index:
    trained_on, least = min(rows, params.train_rows), TRAIN_PER_CENTROID * 2**params.pq_bits
    if rows < least:
        raise ArtifactError(f"an ivfpq index needs at least {least} vectors, not {rows}; use flat")
    if trained_on < max(least, params.nlist):
        raise ParameterError(
            f"index.train_rows: {trained_on} vectors are too few, {max(least, params.nlist)} are needed"
        )
    if params.pq_parts and dim % params.pq_parts:
        raise ParameterError(f"index.pq_parts: {params.pq_parts} does not divide the vectors' {dim} dimensions")
    lists = params.nlist or max(1, min(int(4 * rows**0.5), trained_on // TRAIN_PER_LIST))
    parts = params.pq_parts or max(
        parts for parts in range(1, max(1, dim // DIMENSIONS_A_PART[params.pq_bits]) + 1) if dim % parts == 0
    )
    quantised = f"PQ{parts}x4fs" if params.pq_bits == 4 else f"PQ{parts}x8"
    return _from_factory(dim, f"IVF{lists}", quantised, "RFlat" if params.storage == "float32" else "Refine(SQfp16)")


def _from_factory(dim: int, *factory: str) -> faiss.Index:
    return faiss.index_factory(dim, ",".join(factory), faiss.METRIC_INNER_PRODUCT)


def _probed(index: faiss.Index) -> int:
    ivf = inverted_lists(index)
    return PROBED_LEAST if ivf is None else max(PROBED_LEAST, round(ivf.nlist * PROBED_SHARE))

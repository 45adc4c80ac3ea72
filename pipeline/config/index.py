"""`index`: how galleries are searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pipeline.config.ranges import Count, CountOrZero, Range
from pipeline.config.section import Section, require

IndexKind = Literal["flat", "hnsw", "ivfpq", "milvus"]
MilvusKind = Literal["FLAT", "HNSW", "AUTOINDEX"]
Storage = Literal["float32", "float16"]
SearchDevice = Literal["cpu", "auto"]
PqBits = Literal[4, 8]
Links = Annotated[int, Range(2)]


@dataclass(kw_only=True)
class IndexParams(Section):
    """`index`: how every gallery is searched. Flat is exact; the others trade recall for time or memory."""

    section: ClassVar[str] = "index"

    kind: IndexKind
    """Of FAISS, flat: exact search; hnsw: a graph; ivfpq: quantised vectors in lists. milvus: a database, at `uri`."""
    uri: str
    """Milvus: a path of Milvus Lite, or the address of a server, such as http://localhost:19530."""
    milvus_index: MilvusKind
    """Milvus's index: FLAT is exact, HNSW takes the sizes below, AUTOINDEX leaves it to the server."""
    storage: Storage
    """The vectors that are kept and that scores are computed from; Milvus keeps float32."""
    device: SearchDevice
    """auto: search on a GPU where FAISS has one for this kind (flat in float32, ivfpq)."""
    hnsw_m: Links
    """Links a node; twice as many in the lowest layer."""
    ef_construction: Count
    """Candidates kept while HNSW is built."""
    ef_search: Count
    """Candidates kept while HNSW is searched."""
    deterministic: bool
    """false: HNSW is built by all threads, faster, and differs from one build to the next."""
    nlist: CountOrZero
    """IVF's lists; 0: 4 sqrt(rows), as far as the training sample reaches."""
    nprobe: CountOrZero
    """Lists that a query reads; 0: 15% of them, at least 8."""
    pq_bits: PqBits
    """Bits a part of a product-quantised vector: 4 (FAISS's fast scan), or 8 (slower to train and on a CPU; the form
    that a GPU has)."""
    pq_parts: CountOrZero
    """Parts of a product-quantised vector; 0: about one to four dimensions with 4 bits, to sixteen with 8."""
    refine_factor: Count
    """Candidates by quantised scores for each one that is asked for."""
    train_rows: Count
    """At most so many vectors, drawn by the seed, train IVF and PQ; what bounds the memory of training."""
    recall_queries: CountOrZero
    """Queries that recall against exact search is measured with after building; 0: not measured."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.nlist or self.nprobe <= self.nlist,
            f"index.nprobe: {self.nprobe} is more than index.nlist {self.nlist}",
        )
        require(
            self.kind != "milvus" or self.storage == "float32",
            f"index.storage: {self.storage}, but index.kind: milvus keeps float32",
        )

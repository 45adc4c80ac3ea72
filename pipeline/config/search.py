"""Indexes, inference, and what is reported of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.config.checks import require
from pipeline.config.speed import Speed


@dataclass
class IndexParams:
    """How galleries are searched (README: Choosing an index)."""

    kind: str = "flat"
    """flat | hnsw | ivfpq."""
    storage: str = "float32"
    """float32 | float16: the vectors that are kept and that scores are computed from."""
    device: str = "auto"
    """cpu | auto: search on a GPU where FAISS has one for this kind (flat in float32, ivfpq)."""
    hnsw_m: int = 32
    """Links a node; twice as many in the lowest layer."""
    ef_construction: int = 200
    ef_search: int = 256
    deterministic: bool = True
    """false: HNSW is built by all threads, faster, and differs from one build to the next."""
    nlist: int = 0
    """IVF's lists; 0: 4 sqrt(rows), as far as the training sample reaches."""
    nprobe: int = 0
    """Lists that a query reads; 0: 15% of them, at least 8."""
    pq_bits: int = 4
    """Bits a part of a product-quantised vector: 4 (FAISS's fast scan) | 8 (slower to train and on a CPU; the form a GPU has)."""
    pq_parts: int = 0
    """0: about one to four dimensions with 4 bits, to sixteen with 8."""
    refine_factor: int = 8
    """Candidates by quantised scores for each one that is asked for."""
    train_rows: int = 131_072
    """At most so many vectors, drawn by the seed, train IVF and PQ; what bounds the memory of training."""
    recall_queries: int = 256
    """Queries that recall against exact search is measured with after building; 0: not measured."""

    def __post_init__(self) -> None:
        require(self.kind in ("flat", "hnsw", "ivfpq"), f"index.kind: {self.kind!r} is not one of flat, hnsw, ivfpq")
        require(
            self.storage in ("float32", "float16"), f"index.storage: {self.storage!r} is neither float32 nor float16"
        )
        require(self.device in ("cpu", "auto"), f"index.device: {self.device!r} is neither cpu nor auto")
        require(self.pq_bits in (4, 8), f"index.pq_bits: {self.pq_bits} is neither 4 nor 8")
        least = {"hnsw_m": 2, "ef_construction": 1, "ef_search": 1, "refine_factor": 1, "train_rows": 1}
        for name in (*least, "nlist", "nprobe", "pq_parts", "recall_queries"):
            value = getattr(self, name)
            require(value >= least.get(name, 0), f"index.{name}: {value} is less than {least.get(name, 0)}")
        require(
            not self.nlist or self.nprobe <= self.nlist,
            f"index.nprobe: {self.nprobe} is more than index.nlist {self.nlist}",
        )


@dataclass
class RetrieveParams:
    """Inference: sampling and search."""

    solver_steps: int = 14
    guidance_scale: float = 2.5
    control_scale: float = 1.0
    temperature: float = 1.0
    """Scales the starting noise (see `SamplerSettings`). 1: the paper."""
    fast: bool = False
    """On a GPU: sample in bfloat16, with fused kernels, and as CUDA graphs of fixed sizes (`pipeline.gpu.sampling`)."""
    fp8: bool = False
    """With `fast`: products of 8-bit numbers in the prior's and the adapter's blocks."""
    guided_share: float = 1.0
    """Share of the solver's steps, from the first on, that are guided (see `SamplerSettings`). 1: the paper."""
    hypotheses: int = 1
    descriptions: int = 1
    """D: the likeliest target descriptions of a query; each conditions hypotheses / D of its hypotheses. 1: the paper."""
    fuse: str = "mean"
    """How several hypotheses' scores become one: mean | max."""
    batch_size: int = 256
    top_k: int = 50
    slerp: float = 0.5
    """Weight of the text in the training-free slerp row, chosen on the validation split."""
    image_text: float = 0.5
    """Weight of the text in the training-free image + text row."""
    edit_prompt: str = ""
    """CIReVL's second step: the text-only instruction by which f_M applies {modification} to {caption}. Empty, for an
    f_M that follows none: its description of the target, read off the reference itself, takes the place of both steps."""

    def __post_init__(self) -> None:
        require(self.temperature >= 0.0, f"retrieve.temperature: {self.temperature} is negative")
        require(
            0.0 < self.guided_share <= 1.0, f"retrieve.guided_share: {self.guided_share} is not above 0 and at most 1"
        )
        require(self.fast or not self.fp8, "retrieve.fp8 needs retrieve.fast")
        require(self.fuse in ("mean", "max"), f"retrieve.fuse: {self.fuse!r} is neither mean nor max")
        require(
            self.descriptions > 0 and self.hypotheses > 0 and self.hypotheses % self.descriptions == 0,
            f"retrieve.hypotheses {self.hypotheses} is not a positive multiple of retrieve.descriptions {self.descriptions}",
        )

    @property
    def speed(self) -> Speed:
        """`fast` and `fp8` as the choices that a sampler is accelerated by."""
        return Speed(fused=self.fast, fp8=self.fp8, cuda_graph=self.fast)


@dataclass
class ReportParams:
    bootstrap: int = 1000
    page_megabytes: float = 7.0
    """Bound on the page: as many queries are shown, of all kinds alike, as have room for their images."""

    def __post_init__(self) -> None:
        require(self.bootstrap > 0, f"report.bootstrap: {self.bootstrap} is not positive")
        require(self.page_megabytes > 0, f"report.page_megabytes: {self.page_megabytes} is not positive")


@dataclass
class SweepParams:
    """Values tried of gamma, delta and N (the paper's figure 5); the others stay those of `retrieve`."""

    benchmark: str = "emoji_cir_val"
    """Where parameters are chosen."""
    guidance_scale: list[float] = field(default_factory=lambda: [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0])
    control_scale: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0])
    solver_steps: list[int] = field(default_factory=lambda: [2, 4, 6, 8, 10, 14, 18, 22])

    def __post_init__(self) -> None:
        for name, least in (("guidance_scale", 0.0), ("control_scale", 0.0), ("solver_steps", 1)):
            values = getattr(self, name)
            require(
                len(values) > 0 and min(values) >= least,
                f"sweep.{name}: {values} is not a list of numbers of at least {least}",
            )
            require(values == sorted(set(values)), f"sweep.{name}: {values} does not rise from value to value")


@dataclass
class AblationParams:
    """What the rows of `ablations/tables.yaml` share (`pipeline.experiments.ablation`)."""

    recipe: dict[str, Any] = field(default_factory=dict)
    """What all of them change of `diffcomp`."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    benchmarks: list[str] = field(default_factory=lambda: ["emoji_cir_val", "emoji_cir"])

    def __post_init__(self) -> None:
        for name in ("seeds", "benchmarks"):
            values = getattr(self, name)
            require(
                len(set(values)) == len(values) > 0, f"ablations.{name}: {values} is empty, or holds something twice"
            )

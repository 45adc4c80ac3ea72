"""`retrieve`: inference, from a query to a ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pipeline.config.ranges import Count, NotNegative, PositiveShare, Share
from pipeline.config.section import Section, require
from pipeline.config.speed import Speed

Fuse = Literal["mean", "max"]
SamplerKind = Literal["dpm", "distilled"]


@dataclass(kw_only=True)
class RetrieveParams(Section):
    """`retrieve`: how targets are sampled and searched, and the weights of the training-free rows."""

    section: ClassVar[str] = "retrieve"

    sampler: SamplerKind
    """dpm (the paper): DPM-Solver++ over prior and Control-Adapter. distilled: the student of the stage
    distill_prior."""
    passes: Count
    """Passes of the distilled sampler: 1, or 2 as it is trained for."""
    solver_steps: Count
    """N: steps of the solver."""
    guidance_scale: NotNegative
    """gamma: weight of classifier-free guidance by the description."""
    control_scale: NotNegative
    """delta: weight of the Control-Adapter."""
    temperature: NotNegative
    """Scales the starting noise. 1: the paper."""
    fast: bool
    """On a GPU: sample in bfloat16, with fused kernels, and as CUDA graphs of fixed sizes."""
    fp8: bool
    """With `fast`: products of 8-bit numbers in the prior's and the adapter's blocks."""
    anchor: Share
    """Weight of the fused description in what is searched with, beside the sampled target. 0: the paper."""
    guided_share: PositiveShare
    """Share of the solver's steps, from the first on, that are guided. 1: the paper."""
    hypotheses: Count
    """Targets that are sampled for a query."""
    descriptions: Count
    """D: the likeliest target descriptions of a query; each conditions hypotheses / D of its hypotheses. 1: the
    paper."""
    fuse: Fuse
    """How several hypotheses' scores become one."""
    batch_size: Count
    """Queries that are answered at once."""
    top_k: Count
    """Images of a ranking."""
    slerp: Share
    """Weight of the text in the training-free slerp row, chosen on the validation split."""
    image_text: Share
    """Weight of the text in the training-free image + text row."""
    edit_prompt: str
    """CIReVL's second step: the text-only instruction by which f_M applies {modification} to {caption}. Empty, for an
    f_M that follows none: its description of the target, read off the reference itself, takes the place of both
    steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.fast or not self.fp8, "retrieve.fp8 needs retrieve.fast")
        require(self.passes <= 2, f"retrieve.passes: {self.passes} is not 1 or 2")
        require(
            self.hypotheses % self.descriptions == 0,
            f"retrieve.hypotheses {self.hypotheses} is not a multiple of retrieve.descriptions {self.descriptions}",
        )

    @property
    def speed(self) -> Speed:
        """`fast` and `fp8` as the choices that a sampler is accelerated by."""
        return Speed(fused=self.fast, fp8=self.fp8, cuda_graph=self.fast)

"""`retrieve`: inference, from a query to a ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pipeline.config.section import Section, require
from pipeline.config.speed import Speed

Fuse = Literal["mean", "max"]


@dataclass(kw_only=True)
class RetrieveParams(Section):
    """`retrieve`: how targets are sampled and searched, and the weights of the training-free rows."""

    section: ClassVar[str] = "retrieve"

    solver_steps: int
    """N: steps of the solver."""
    guidance_scale: float
    """gamma: weight of classifier-free guidance by the description."""
    control_scale: float
    """delta: weight of the Control-Adapter."""
    temperature: float
    """Scales the starting noise. 1: the paper."""
    fast: bool
    """On a GPU: sample in bfloat16, with fused kernels, and as CUDA graphs of fixed sizes."""
    fp8: bool
    """With `fast`: products of 8-bit numbers in the prior's and the adapter's blocks."""
    guided_share: float
    """Share of the solver's steps, from the first on, that are guided. 1: the paper."""
    hypotheses: int
    """Targets that are sampled for a query."""
    descriptions: int
    """D: the likeliest target descriptions of a query; each conditions hypotheses / D of its hypotheses. 1: the
    paper."""
    fuse: Fuse
    """How several hypotheses' scores become one."""
    batch_size: int
    """Queries that are answered at once."""
    top_k: int
    """Images of a ranking."""
    slerp: float
    """Weight of the text in the training-free slerp row, chosen on the validation split."""
    image_text: float
    """Weight of the text in the training-free image + text row."""
    edit_prompt: str
    """CIReVL's second step: the text-only instruction by which f_M applies {modification} to {caption}. Empty, for an
    f_M that follows none: its description of the target, read off the reference itself, takes the place of both
    steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature >= 0.0, f"retrieve.temperature: {self.temperature} is negative")
        require(
            0.0 < self.guided_share <= 1.0, f"retrieve.guided_share: {self.guided_share} is not above 0 and at most 1"
        )
        require(self.fast or not self.fp8, "retrieve.fp8 needs retrieve.fast")
        require(
            self.descriptions > 0 and self.hypotheses > 0 and self.hypotheses % self.descriptions == 0,
            f"retrieve.hypotheses {self.hypotheses} is not a positive multiple of "
            f"retrieve.descriptions {self.descriptions}",
        )

    @property
    def speed(self) -> Speed:
        """`fast` and `fp8` as the choices that a sampler is accelerated by."""
        return Speed(fused=self.fast, fp8=self.fp8, cuda_graph=self.fast)

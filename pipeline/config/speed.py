"""What a GPU may do to be quicker: one section type for everything that is accelerated."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.section import Section, require


@dataclass(kw_only=True)
class Speed(Section):
    """How a plain model is made quick on a GPU (`pipeline.gpu.accelerate`). Not used on a CPU; all off by default."""

    fused: bool = False
    """In bfloat16: compute the blocks with the fused kernels of `pipeline.gpu.blocks`."""
    fp8: bool = False
    """With `fused`: 8-bit matrix products in the blocks."""
    cuda_graph: bool = False
    """Record the work of a micro-batch, or of a whole sampling, once as a CUDA graph and replay it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        prefix = f"{self.section}." if self.section else ""
        require(self.fused or not self.fp8, f"{prefix}fp8 needs {prefix}fused")

    def on(self, device: str) -> Speed:
        """These choices on `cuda`, none of them on another device."""
        if device != "cuda":
            return Speed()
        return Speed(fused=self.fused, fp8=self.fp8, cuda_graph=self.cuda_graph)

"""What a GPU may do to be quicker: one section type for everything that is accelerated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.config.checks import require


@dataclass
class Speed:
    """How a plain model is made quick on a GPU (`pipeline.gpu.accelerate`). A CPU takes none of it."""

    section: ClassVar[str] = ""
    """The prefix of the section's parameters in messages, such as `prior.`."""

    fused: bool = False
    """In bfloat16: compute the blocks with the fused kernels of `pipeline.gpu.blocks`."""
    fp8: bool = False
    """With `fused`: 8-bit matrix products in the blocks."""
    cuda_graph: bool = False
    """Record the work of a micro-batch, or of a whole sampling, once as a CUDA graph and replay it."""

    def __post_init__(self) -> None:
        require(self.fused or not self.fp8, f"{self.section}fp8 needs {self.section}fused")

    def on(self, device: str) -> Speed:
        """These choices on `cuda`, none of them on another device."""
        return Speed(self.fused, self.fp8, self.cuda_graph) if device == "cuda" else Speed()

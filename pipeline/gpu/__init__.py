"""What makes the plain models quick on a GPU: kernels, products, graphs, batching. `accelerate` is the way in."""

from pipeline.gpu.accelerate import accelerate

__all__ = ["accelerate"]

"""One call turns a plain model into a quick one."""

from __future__ import annotations

from typing import TypeVar, overload

import torch

from pipeline.config import Speed
from pipeline.fusion_diff.control import ControlledPrior
from pipeline.fusion_diff.prior import Prior
from pipeline.fusion_diff.sampler import Sampler
from pipeline.gpu.sampling import FastSampler

Model = TypeVar("Model", Prior, ControlledPrior)


@overload
def accelerate(model: Model, speed: Speed) -> Model: ...
@overload
def accelerate(model: Sampler, speed: Speed) -> Sampler: ...
def accelerate(model: Prior | ControlledPrior | Sampler, speed: Speed) -> Prior | ControlledPrior | Sampler:
    """Make a model or a sampler quick, from outside: the plain code knows nothing of it.

    Example:
        >>> task = PriorTask(accelerate(Prior(sizes), params.prior.on("cuda")), diffusion, z0, text, p_cfg)
        >>> sampler = accelerate(Sampler(prior, adapter, diffusion, settings), params.retrieve.speed.on("cuda"))

    Args:
        model: A `Prior`, or a `ControlledPrior` whose two parts share one factor of 8-bit gradients: changed in place.
            Or a `Sampler`.
        speed: For a model, `fused` and `fp8`; the training loop heeds `cuda_graph`. For a sampler, all three.

    Returns:
        The same model, or a quick sampler in the place of the given one.

    Raises:
        ValueError: `fp8` without a GPU that has 8-bit products, or with sizes that these cannot have.
    """
    if speed.fp8:
        check_fp8()
    if isinstance(model, Sampler):
        return FastSampler(model, speed) if speed.fused or speed.cuda_graph else model
    if speed.fused:
        from pipeline.gpu.fused import fuse  # wants Triton, which only comes with a GPU's build of torch

        fuse(model, speed.fp8)
    return model


def check_fp8() -> None:
    """ValueError unless there is a GPU with 8-bit products."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9):
        raise ValueError("fp8 needs a GPU of compute capability 8.9 or more")

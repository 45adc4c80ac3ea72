"""A sampler whose whole solver is one piece of work of a fixed size, recorded as a CUDA graph on a GPU."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from pipeline.config import Speed
from pipeline.fusion_diff.control import ControlAdapter, ControlInputs, ControlledPrior
from pipeline.fusion_diff.prior import Modulation, Prior
from pipeline.fusion_diff.sampler import Conditions, Sampler, SamplerSettings
from pipeline.fusion_diff.texts import BlockTexts
from pipeline.gpu.graphs import Denoise, FixedSizes, Inputs, solver_weights


class ConcurrentControlledPrior(ControlledPrior):
    """Runs the adapter on a second stream of the GPU.

    Block l of the adapter needs h_l-1, as the encoder's does. So both run side by side where one alone leaves the GPU
    half empty.
    """

    def __init__(self, prior: Prior, adapter: ControlAdapter, control_scale: float = 1.0):
        super().__init__(prior, adapter, control_scale)
        self.stream = torch.cuda.Stream()

    def encode(
        self, noisy: Tensor, modulation: Modulation, text: BlockTexts, control: ControlInputs
    ) -> tuple[Tensor, list[Tensor]]:
        """See `ControlledPrior.encode`."""
        main, rows = torch.cuda.current_stream(), len(control.shift)
        states, added = [self.prior.embed(noisy)], control.shift  # `states` keeps h_l until the other stream is done
        residuals: list[Tensor] = []
        for index in range(len(self.adapter.bodies)):
            self.stream.wait_stream(main)  # for h_l-1
            with torch.cuda.stream(self.stream):
                added = self.adapter.residual(index, states[-1][-rows:], added, modulation, control.text)
                residuals.append(added)
            states.append(self.prior.blocks[index](states[-1], modulation.blocks[index], text[index]))
        main.wait_stream(self.stream)
        return states[-1], residuals


class FastSampler(Sampler):
    """A `Sampler` that runs all solver steps as one piece of work.

    Weights that change afterwards go unnoticed. Other scales and negative texts take the plain way, with the fused
    blocks where there are any.

    Args:
        sampler: Whose models and settings it takes. Its models are fused in place.
        speed: fused: blocks from fused kernels, in half precision on a GPU. fp8: of 8-bit products. cuda_graph: fixed
            sizes, on a GPU recorded on first use of each.

    Raises:
        ValueError: Sizes that 8-bit products cannot have.
    """

    def __init__(self, sampler: Sampler, speed: Speed):
        vars(self).update(vars(sampler))  # what it has prepared, whatever its class
        self._plain = sampler
        if speed.fused:
            self._fuse(speed.fp8)
        self._recorded: FixedSizes | None = None
        if speed.cuda_graph:
            weights = solver_weights(self.diffusion, self.settings.solver_steps).to(self.device)
            self._recorded = FixedSizes(self._prepare, weights)
        self._recording = copy.copy(self)
        """What is recorded: the same models, side by side. Only one thread records, but others may sample plainly."""
        if self.controlled is not None and self.device.type == "cuda":
            parts = self.controlled.prior, self.controlled.adapter, self.controlled.control_scale
            self._recording.controlled = ConcurrentControlledPrior(*parts).eval()

    @property
    def gains_from_batches(self) -> bool:
        """On a GPU, which one query alone leaves half empty."""
        return self._recorded is not None and self.device.type == "cuda"

    def _with(self, settings: SamplerSettings) -> Sampler:
        return self._plain._with(settings)

    def _fuse(self, fp8: bool) -> None:
        from pipeline.gpu.fused import fuse, prepare  # wants Triton, which only comes with a GPU's build of torch

        model = self.prior if self.controlled is None else self.controlled
        fuse(model)
        if self.prior.patch.weight.dtype.itemsize == 2:
            prepare(model, fp8)

    def _prepare(self, inputs: Inputs) -> Denoise:
        denoise = self._recording._denoiser(Conditions(inputs.states, inputs.mask, inputs.control))
        return lambda noisy, index: denoise(noisy, index, 0)  # it knows its timesteps by their index

    def _draw(self, noise: Tensor, conditions: Conditions, hypotheses: int) -> Tensor:
        if self._recorded is None or conditions.negative is not None:
            return super()._draw(noise, conditions, hypotheses)
        states, mask, control = conditions.states, conditions.mask if conditions.padded else None, conditions.control
        inputs = Inputs(noise, states, mask, control)
        if hypotheses > 1:
            repeated = inputs._replace(noise=states).each(lambda part: part.repeat_interleave(hypotheses, 0))
            inputs = repeated._replace(noise=noise)
        return self._recorded(inputs)  # [Q*K, d]

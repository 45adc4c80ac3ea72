"""What the training loop asks of the distillation: the teacher's trajectories, and a student that jumps along them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.distill.jumps import Jumps
from pipeline.distill.student import Scales, Student
from pipeline.fusion_diff import ControlAdapter, ControlledPrior, Diffusion, Prior, check_vectors
from pipeline.fusion_diff.conditions import TextBatch, Texts, Vectors, send
from pipeline.fusion_diff.control import ControlInputs
from pipeline.fusion_diff.sampler import guide, walk


class Teacher:
    """The guided prior under control, as a sampler walks with it.

    Args:
        prior: Frozen.
        adapter: Frozen.
        diffusion: Their process.
        steps: Solver steps N.
    """

    def __init__(self, prior: Prior, adapter: ControlAdapter, diffusion: Diffusion, steps: int):
        self.model = ControlledPrior(prior, adapter).requires_grad_(False).eval()
        self.diffusion, self.steps = diffusion, steps

    @torch.no_grad()
    def trajectory(self, noise: Tensor, text: TextBatch, control: Tensor, scales: Scales) -> list[Tensor]:
        """z_0 (the noise [B, d]) to z_N (clean) at the solver's points; other inputs as `Student.forward` takes them.

        It is `Sampler`'s walk, but each row has its own scales.
        """
        prior, adapter, rows = self.model.prior, self.model.adapter, len(noise)
        context = prior.text_context(*text, rows=2 * rows)
        keys_values = prior.text_keys_values(context)
        steering = ControlInputs(adapter.text_keys_values(context.last(rows)), adapter.shift(control))
        schedule = prior.modulation(self.diffusion.solver(self.steps).timesteps.to(noise.device))
        gamma, delta = scales.guidance[:, None], scales.control[:, None, None]

        def denoise(noisy: Tensor, index: int, _: int) -> Tensor:
            modulation = schedule.row(index)
            hidden, residuals = self.model.encode(torch.cat([noisy, noisy]), modulation, keys_values, steering)
            added = [delta.to(residual.dtype) * residual for residual in reversed(residuals)]
            predicted = prior.output(prior.decode(hidden, modulation, keys_values, added), modulation)
            unconditional, conditional = predicted.chunk(2)
            return guide(conditional, unconditional, gamma)

        return list(walk(denoise, noise, self.diffusion, self.steps))


class DistillTask:
    """Make a student jump to where the teacher's solver walks.

    Each row draws its gamma, its delta, and noise of its own temperature in [0, 1]. The teacher walks once, and the
    student learns the jumps of one pass and of two: from end to end, and over either half.

    Args:
        student: Begins as a copy of the teacher.
        teacher: What is imitated.
        jumps: Along the teacher's solver.
        control: z_r,delta [N, d].
        text: N encoded texts.

    Raises:
        ValueError: The parts do not go together, or a vector is not finite; names its row.
    """

    def __init__(self, student: Student, teacher: Teacher, jumps: Jumps, control: Vectors, text: Texts):
        if len(control) != len(text):
            raise ValueError(f"distillation: {len(text)} texts for {len(control)} rows of z_r,delta")
        self.model: nn.Module = student
        self.student, self.teacher, self.jumps, self.text = student, teacher, jumps, text
        self.control = check_vectors(control, student.prior.sizes.dim, "z_r,delta")
        self.pairs = sorted({pair for passes in (1, 2) for pair in jumps.pairs(passes)})
        """Starts and ends of the jumps that are learned."""

    def __len__(self) -> int:
        return len(self.control)

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device | str
    ) -> tuple[Tensor, dict[str, Any]]:
        """The error of x relative to x, as a mean over all jumps; every random number comes from `generator`.

        A sample is normalised in the end, and strong guidance makes it long. So what counts is its relative error.
        """
        indices, rows = indices.cpu(), len(indices)
        drawn = torch.rand(3, rows, generator=generator)
        noise = drawn[0, :, None] * torch.randn(rows, self.jumps.dim, generator=generator)  # of a temperature in [0, 1]
        noise, control, drawn = (send(part, device) for part in (noise, self.control[indices], drawn))
        control = control.float() * self.jumps.scale
        limits = self.student.limits
        scales = Scales(limits.guidance_scale * drawn[1], limits.control_scale * drawn[2])
        text = self.text.batch(indices, device)
        walked = self.teacher.trajectory(noise, text, control, scales)
        losses = []
        for start, end in self.pairs:
            points = self.jumps.points.timesteps[[start, end]].to(device)
            predicted = model(walked[start], points[:, None].expand(2, rows), text, control, scales)
            found = self.jumps.clean(predicted, walked[start], start)
            mean = self.jumps.mean(walked[start], walked[end], start, end)
            losses.append(((found - mean).square().sum(1) / mean.square().sum(1)).mean())
        names = (f"mse_{start}_{end}" for start, end in self.pairs)
        return torch.stack(losses).mean(), {name: loss.detach() for name, loss in zip(names, losses, strict=True)}

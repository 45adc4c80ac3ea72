"""What the training loop asks of Stage 1 and Stage 2: a model and the loss of some examples."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.fusion_diff.conditions import TEXT_MULTIPLE, TextBatch, Texts, Vectors, check_vectors, send
from pipeline.fusion_diff.control import ControlledPrior
from pipeline.fusion_diff.diffusion import Diffusion
from pipeline.fusion_diff.flops import control_training_flops, prior_training_flops
from pipeline.fusion_diff.prior import Prior, PriorSizes

ROWS_MULTIPLE = 8
"""Batches of fixed shapes make room for a multiple of so many dropped texts."""


class PriorTask:
    """Stage 1 (Algorithm 2): denoise z_0 given its text, which is dropped with probability p_cfg.

    Args:
        prior: The model to train.
        diffusion: The process, of the prior's dimension.
        z0: Fused embeddings [N, d].
        text: Their N texts.
        p_cfg: Share of the texts that are dropped.

    Raises:
        ValueError: The parts do not go together, or a vector is not finite; names its row.
    """

    def __init__(self, prior: Prior, diffusion: Diffusion, z0: Vectors, text: Texts, p_cfg: float):
        _check(prior.sizes, diffusion, len(z0), text, p_cfg)
        self.model: nn.Module = prior
        self.sizes, self.diffusion, self.text, self.p_cfg = prior.sizes, diffusion, text, p_cfg
        self.z0 = check_vectors(z0, prior.sizes.dim, "z_0")

    def __len__(self) -> int:
        return len(self.z0)

    @property
    def flops_per_sample(self) -> float:
        """See `pipeline.training.meter.Meter`."""
        return prior_training_flops(self.sizes, self.text.mean_tokens)

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device | str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 3 over the examples at indices [B]; every random number comes from `generator`."""
        return self.loss_of(model, *self.inputs(indices, generator, device))

    def inputs(
        self, indices: Tensor, generator: torch.Generator, device: torch.device | str, fixed_shapes: bool = False
    ) -> tuple[Any, ...]:
        """What differs between batches: timesteps [B], noise and z_0, each [B, d], and the texts (`text_inputs`)."""
        indices, kept = drop_texts(indices, self.p_cfg, generator)
        step, noise = self.diffusion.draw(len(indices), generator)
        step, noise, clean = (send(value, device) for value in (step, noise, self.z0[indices]))
        return step, noise, clean, *text_inputs(self, kept, len(indices), device, fixed_shapes)

    def loss_of(
        self, model: nn.Module, step: Tensor, noise: Tensor, clean: Tensor, *text: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 3 of `inputs`."""
        predicted = model(self.diffusion.noise(clean, step, noise), step, *text)  # [B, d]
        loss = self.diffusion.loss(predicted, self.diffusion.target(clean, step, noise))
        return loss, {"mse": loss.detach()}


class ControlTask:
    """Stage 2 (Algorithm 3): denoise z_t given the edit text and z_r,delta; only the adapter learns.

    The text is dropped with probability p_cfg while the control stays. The control is scaled as embeddings are while
    they diffuse.

    Args:
        model: The frozen prior and the adapter.
        diffusion: The process that the prior was trained for.
        control: z_r,delta [N, d].
        z_t: Target embeddings [N, d].
        text: The N encoded edit texts.
        p_cfg: Share of the texts that are dropped.

    Raises:
        ValueError: The parts do not go together, or a vector is not finite; names its row.
    """

    def __init__(
        self,
        model: ControlledPrior,
        diffusion: Diffusion,
        control: Vectors,
        z_t: Vectors,
        text: Texts,
        p_cfg: float = 0.0,
    ):
        self.sizes = model.prior.sizes
        _check(self.sizes, diffusion, len(z_t), text, p_cfg)
        if len(control) != len(z_t):
            raise ValueError(f"training: {len(control)} rows of z_r,delta for {len(z_t)} of z_t")
        self.model: nn.Module = model
        self.diffusion, self.text, self.p_cfg = diffusion, text, p_cfg
        self.control = check_vectors(control, self.sizes.dim, "z_r,delta")
        self.z_t = check_vectors(z_t, self.sizes.dim, "z_t")

    def __len__(self) -> int:
        return len(self.z_t)

    @property
    def flops_per_sample(self) -> float:
        """See `pipeline.training.meter.Meter`."""
        return control_training_flops(self.sizes, self.text.mean_tokens)

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device | str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 5 over the examples at indices [B]; every random number comes from `generator`."""
        return self.loss_of(model, *self.inputs(indices, generator, device))

    def inputs(
        self, indices: Tensor, generator: torch.Generator, device: torch.device | str, fixed_shapes: bool = False
    ) -> tuple[Any, ...]:
        """What differs between batches: timesteps [B]; noise, z_t and z_r,delta, each [B, d]; and the texts."""
        indices, kept = drop_texts(indices, self.p_cfg, generator)
        step, noise = self.diffusion.draw(len(indices), generator)
        vectors = step, noise, self.z_t[indices], self.control[indices]
        step, noise, clean, control = (send(value, device) for value in vectors)
        return step, noise, clean, control, *text_inputs(self, kept, len(indices), device, fixed_shapes)

    def loss_of(
        self, model: nn.Module, step: Tensor, noise: Tensor, clean: Tensor, control: Tensor, *text: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 5 of `inputs`."""
        states, mask, *dropped = text
        noisy = self.diffusion.noise(clean, step, noise)  # [B, d]
        predicted = model(noisy, step, states, mask, control.float() * self.diffusion.scale, *dropped)  # [B, d]
        loss = self.diffusion.loss(predicted, self.diffusion.target(clean, step, noise))
        return loss, {"mse": loss.detach()}


def drop_texts(indices: Tensor, p_cfg: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Drop each text with probability p_cfg.

    Args:
        indices: Examples [B].
        p_cfg: The probability.
        generator: Decides which.

    Returns:
        The indices [B] with those that lose their text first, as the prior takes them, and the B' that keep it.
    """
    indices = indices.cpu()
    dropped = torch.rand(len(indices), generator=generator) < p_cfg  # [B]
    return torch.cat([indices[dropped], indices[~dropped]]), indices[~dropped]


def room_for_dropped(rows: int, p_cfg: float, dropped: int) -> int:
    """C >= dropped: how many of a batch's rows may lose their text, the same for nearly all batches of `rows`.

    The number that do is binomial. No training needs more than five standard deviations above its mean: other shapes
    would have to be recorded, while all processes wait for the one that does.
    """
    most = rows * p_cfg + 5.0 * math.sqrt(rows * p_cfg * (1.0 - p_cfg))
    return min(rows, math.ceil(max(most, dropped) / ROWS_MULTIPLE) * ROWS_MULTIPLE)


def fill_up(states: Tensor, mask: Tensor | None, rows: int, room: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """Texts of all rows from those of the last B' >= 1: a row without a text gets the first one's.

    The shapes do not depend on B', so that one CUDA graph serves all batches.

    Args:
        states: [B', T, text_dim].
        mask: [B', T] bool, or None.
        rows: B.
        room: C >= B - B'.

    Returns:
        States [B, T, text_dim], mask [B, T], and which of the first C texts are not to be seen [C] bool.
    """
    missing = rows - len(states)

    def filled(part: Tensor) -> Tensor:
        return torch.cat([part[:1].expand(missing, *part.shape[1:]), part])

    dropped = torch.arange(room, device=states.device) < missing
    return filled(states), None if mask is None else filled(mask), dropped


def text_inputs(
    task: PriorTask | ControlTask, kept: Tensor, rows: int, device: torch.device | str, fixed_shapes: bool
) -> TextBatch | tuple[Tensor, Tensor | None, Tensor]:
    """What a model takes of the texts `kept` [B'] in a batch.

    Args:
        task: Whose texts they are.
        kept: Indices of those that are seen.
        rows: B.
        device: Where they go.
        fixed_shapes: Make the shapes the same from batch to batch, for a CUDA graph.

    Returns:
        States [B', T, text_dim] and mask [B', T]. With fixed shapes and p_cfg > 0, those of all B rows, and which of
        the first rows are dropped.
    """
    if not fixed_shapes:
        return task.text.batch(kept, device)
    states, mask = task.text.batch(kept, device, TEXT_MULTIPLE)
    if task.p_cfg == 0.0 or len(kept) == 0:
        return states, mask
    return fill_up(states, mask, rows, room_for_dropped(rows, task.p_cfg, rows - len(kept)))


def _check(sizes: PriorSizes, diffusion: Diffusion, rows: int, text: Texts, p_cfg: float) -> None:
    if diffusion.dim != sizes.dim:
        raise ValueError(f"training: the diffusion has dimension {diffusion.dim}, the prior {sizes.dim}")
    if len(text) != rows:
        raise ValueError(f"training: {len(text)} texts for {rows} embeddings")
    if text.dim != sizes.text_dim or text.longest > sizes.text_tokens:
        given = f"texts of dimension {text.dim} with up to {text.longest} tokens"
        raise ValueError(f"training: {given}, the prior takes {sizes.text_dim} and at most {sizes.text_tokens}")
    if not 0.0 <= p_cfg <= 1.0:
        raise ValueError(f"training: p_cfg {p_cfg} is not between 0 and 1")

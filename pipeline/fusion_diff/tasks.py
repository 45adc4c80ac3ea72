"""What the training loop asks of Stage 1 and Stage 2: a model and the loss of some examples."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pipeline.fusion_diff.conditions import Texts, Vectors, check_vectors, send
from pipeline.fusion_diff.control import ControlAdapter, ControlledPrior
from pipeline.fusion_diff.diffusion import Diffusion
from pipeline.fusion_diff.flops import control_training_flops, prior_training_flops
from pipeline.fusion_diff.layers import train_in_8_bits
from pipeline.fusion_diff.prior import Prior
from pipeline.gpu.graphs import TEXT_MULTIPLE

ROWS_MULTIPLE = 8
"""Batches of constant shape make room for a multiple of so many dropped texts."""


class PriorTask:
    """Stage 1 (Algorithm 2): denoise z_0 given its text, which is dropped with probability p_cfg.

    z0: [N, d], `text`: N texts. Raises ValueError when they do not fit the prior or each other,
    naming the row of a vector that is not finite. fused: see `Prior.fused`; fp8: with products of 8 bits.
    cuda_graph: see `pipeline.training.graphed`; batches have constant shapes then (`fill_up`).
    """

    def __init__(
        self,
        prior: Prior,
        diffusion: Diffusion,
        z0: Vectors,
        text: Texts,
        p_cfg: float,
        fused: bool = False,
        fp8: bool = False,
        cuda_graph: bool = False,
    ):
        _check(prior, diffusion, len(z0), text, p_cfg)
        self.model: nn.Module = prior
        self.diffusion, self.text, self.p_cfg = diffusion, text, p_cfg
        self.graphed, prior.fused = cuda_graph, fused
        if fused and fp8:
            train_in_8_bits(block.body for block in prior.blocks)
        self.z0 = check_vectors(z0, prior.sizes.dim, "z_0")

    def __len__(self) -> int:
        return len(self.z0)

    @property
    def flops_per_sample(self) -> float:
        """See `pipeline.training.meter.Meter`."""
        return prior_training_flops(self.model.sizes, self.text.mean_tokens)

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device | str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 3 over the examples at indices [B]; every random number comes from `generator`."""
        return self.loss_of(model, *self.inputs(indices, generator, device))

    def inputs(
        self, indices: Tensor, generator: torch.Generator, device: torch.device | str
    ) -> tuple[Tensor | None, ...]:
        """Timesteps [B], noise [B, d], z_0 [B, d] and what `_text_batch` gives."""
        indices, texts = drop_texts(indices, self.p_cfg, generator)
        step, noise = self.diffusion.draw(len(indices), generator)
        step, noise, clean = (send(value, device) for value in (step, noise, self.z0[indices]))
        return step, noise, clean, *_text_batch(self, texts, len(indices), device)

    def loss_of(
        self, model: nn.Module, step: Tensor, noise: Tensor, clean: Tensor, *given: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 3 of `inputs`."""
        predicted = model(self.diffusion.noise(clean, step, noise), step, *given)  # [B, d]
        loss = self.diffusion.loss(predicted, self.diffusion.target(clean, step, noise))
        return loss, {"mse": loss.detach()}


class ControlTask:
    """Stage 2 (Algorithm 3): denoise z_t given the edit text and z_r,delta; only the adapter learns.

    control: z_r,delta [N, d]; z_t: [N, d]; `text`: N encoded edit texts. p_cfg drops the text and
    keeps the control, which is scaled as the embeddings that diffuse are. Freezes `prior`. The rest: as `PriorTask`.
    """

    def __init__(
        self,
        prior: Prior,
        adapter: ControlAdapter,
        diffusion: Diffusion,
        control: Vectors,
        z_t: Vectors,
        text: Texts,
        p_cfg: float = 0.0,
        fused: bool = False,
        fp8: bool = False,
        cuda_graph: bool = False,
    ):
        _check(prior, diffusion, len(z_t), text, p_cfg)
        if len(control) != len(z_t):
            raise ValueError(f"training: {len(control)} rows of z_r,delta for {len(z_t)} of z_t")
        self.model: nn.Module = ControlledPrior(prior, adapter)
        self.diffusion, self.text, self.p_cfg = diffusion, text, p_cfg
        self.graphed, prior.fused = cuda_graph, fused
        if fused and fp8:
            train_in_8_bits((*(block.body for block in prior.blocks), *adapter.bodies))
        self.control = check_vectors(control, prior.sizes.dim, "z_r,delta")
        self.z_t = check_vectors(z_t, prior.sizes.dim, "z_t")

    def __len__(self) -> int:
        return len(self.z_t)

    @property
    def flops_per_sample(self) -> float:
        """See `pipeline.training.meter.Meter`."""
        return control_training_flops(self.model.prior.sizes, self.text.mean_tokens)

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device | str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 5 over the examples at indices [B]; every random number comes from `generator`."""
        return self.loss_of(model, *self.inputs(indices, generator, device))

    def inputs(
        self, indices: Tensor, generator: torch.Generator, device: torch.device | str
    ) -> tuple[Tensor | None, ...]:
        """Timesteps [B], noise, z_t and z_r,delta, each [B, d], and what `_text_batch` gives."""
        indices, texts = drop_texts(indices, self.p_cfg, generator)
        step, noise = self.diffusion.draw(len(indices), generator)
        step, noise, clean, control = (
            send(value, device) for value in (step, noise, self.z_t[indices], self.control[indices])
        )
        return step, noise, clean, control, *_text_batch(self, texts, len(indices), device)

    def loss_of(
        self,
        model: nn.Module,
        step: Tensor,
        noise: Tensor,
        clean: Tensor,
        control: Tensor,
        states: Tensor,
        mask: Tensor | None,
        *dropped: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 5 of `inputs`."""
        noisy = self.diffusion.noise(clean, step, noise)  # [B, d]
        predicted = model(noisy, step, states, mask, control.float() * self.diffusion.scale, 1.0, *dropped)  # [B, d]
        loss = self.diffusion.loss(predicted, self.diffusion.target(clean, step, noise))
        return loss, {"mse": loss.detach()}


def drop_texts(indices: Tensor, p_cfg: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Drop each text with probability p_cfg.

    Returns the indices [B] with those that lose their text first, as the prior wants them, and the
    B' that keep it.
    """
    indices = indices.cpu()
    dropped = torch.rand(len(indices), generator=generator) < p_cfg  # [B]
    return torch.cat([indices[dropped], indices[~dropped]]), indices[~dropped]


def room_for_dropped(rows: int, p_cfg: float, dropped: int) -> int:
    """C >= dropped: how many of a batch's rows may lose their text. The same for nearly all batches of `rows`.

    Their number is binomial. Five standard deviations above its mean, none in a training needs more: other shapes would
    have to be recorded, while all processes wait for the one that does.
    """
    most = rows * p_cfg + 5.0 * math.sqrt(rows * p_cfg * (1.0 - p_cfg))
    return min(rows, math.ceil(max(most, dropped) / ROWS_MULTIPLE) * ROWS_MULTIPLE)


def fill_up(states: Tensor, mask: Tensor | None, rows: int, room: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """Texts of all `rows` from those of the last B' >= 1, and which of the first `room` are not to be seen.

    states [B', T, text_dim], mask [B', T] -> [B, T, text_dim], [B, T] and dropped [C] bool. A row without
    a text gets the first one's. Other than B', these shapes are the same from batch to batch, so that one recording serves all.
    """
    missing = rows - len(states)
    states, mask = (
        None if part is None else torch.cat([part[:1].expand(missing, *part.shape[1:]), part])
        for part in (states, mask)
    )
    return states, mask, torch.arange(room, device=states.device) < missing


def _text_batch(
    task: PriorTask | ControlTask, kept: Tensor, rows: int, device: torch.device | str
) -> tuple[Tensor | None, ...]:
    """What a model takes of the texts `kept` [B'] in a batch of `rows`: states, mask, and with constant shapes what is dropped."""
    if not task.graphed:
        return task.text.batch(kept, device)  # [B', T, text_dim], [B', T]
    states, mask = task.text.batch(kept, device, TEXT_MULTIPLE)
    if task.p_cfg == 0.0 or len(kept) == 0:
        return states, mask
    return fill_up(states, mask, rows, room_for_dropped(rows, task.p_cfg, rows - len(kept)))


def _check(prior: Prior, diffusion: Diffusion, rows: int, text: Texts, p_cfg: float) -> None:
    sizes = prior.sizes
    if diffusion.dim != sizes.dim:
        raise ValueError(f"training: the diffusion has dimension {diffusion.dim}, the prior {sizes.dim}")
    if len(text) != rows:
        raise ValueError(f"training: {len(text)} texts for {rows} embeddings")
    if text.dim != sizes.text_dim or text.longest > sizes.text_tokens:
        raise ValueError(
            f"training: texts of dimension {text.dim} with up to {text.longest} tokens, "
            f"the prior takes {sizes.text_dim} and at most {sizes.text_tokens}"
        )
    if not 0.0 <= p_cfg <= 1.0:
        raise ValueError(f"training: p_cfg {p_cfg} is not between 0 and 1")

"""The Control-Adapter: Stage 2's trained branch beside the frozen prior."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple, cast

from torch import Tensor, nn

from pipeline.fusion_diff.layers import BlockBody
from pipeline.fusion_diff.prior import Modulation, Prior
from pipeline.fusion_diff.texts import BlockTexts, TextContext


class ControlInputs(NamedTuple):
    """What the adapter takes of the last C rows of a batch. Neither depends on the timestep."""

    text: BlockTexts
    """The adapter's own keys and values of their texts."""
    shift: Tensor
    """Z1(z_r,delta) [C, 1, D], for every token."""


class ControlAdapter(nn.Module):
    """Copies of the prior's encoder bodies behind zero-initialised linear layers (Eq. 6).

    The copies have no AdaLN: they take the frozen prior's outputs. The adapter keeps no reference to the prior, so
    its parameters are exactly what Stage 2 trains.
    """

    def __init__(self, prior: Prior):
        super().__init__()
        sizes = prior.sizes
        self.sizes = sizes
        half = sizes.depth // 2
        bodies = nn.ModuleList(copy.deepcopy(prior.blocks[index].body) for index in range(half))
        self.bodies = cast(Sequence[BlockBody], bodies.requires_grad_(True))
        self.zero_in = nn.Linear(sizes.dim, sizes.width)  # Z1
        self.zero_out = nn.ModuleList(nn.Linear(sizes.width, sizes.width) for _ in range(half))  # Z2 of each block
        for layer in (self.zero_in, *self.zero_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def shift(self, control: Tensor) -> Tensor:
        """Z1 of z_r,delta [C, d], for every token: [C, 1, D]. ValueError on another dimension."""
        if control.ndim != 2 or control.shape[1] != self.sizes.dim:
            raise ValueError(f"control: {tuple(control.shape)}, expected [C, {self.sizes.dim}]")
        return self.zero_in(control.to(self.zero_in.weight.dtype))[:, None]

    def text_keys_values(self, context: TextContext) -> BlockTexts:
        """Keys and values of every copy's cross-attention. A sampler computes them once a query."""
        return [body.cross_attention.keys_values(context) for body in self.bodies]

    def forward(self, states: Sequence[Tensor], modulation: Modulation, control: ControlInputs) -> list[Tensor]:
        """Residuals for the last C rows of the batch (Eq. 6).

        h_c,0 = h_0 + Z1(z_r,delta);  r_l = Z2_l(F_c,l(h_c,l-1));  h_c,l = h_l + r_l.

        Args:
            states: The frozen encoder's h_0 .. h_L, each [B, M, D].
            modulation: The frozen prior's AdaLN outputs.
            control: Texts and shift of the C rows.

        Returns:
            r_1 .. r_L, each [C, M, D].
        """
        rows, added, residuals = control.shift.shape[0], control.shift, []
        for index in range(len(self.bodies)):
            added = self.residual(index, states[index][-rows:], added, modulation, control.text)
            residuals.append(added)
        return residuals

    def residual(self, index: int, hidden: Tensor, added: Tensor, modulation: Modulation, text: BlockTexts) -> Tensor:
        """One residual r_l, with l = index + 1.

        Args:
            index: Which copy computes it.
            hidden: h_l-1 [C, M, D].
            added: What h_c,l-1 has beside h_l-1: r_l-1 [C, M, D], or the shift [C, 1, D] for the first copy.
            modulation: The frozen prior's AdaLN outputs.
            text: The adapter's keys and values.

        Returns:
            r_l [C, M, D].
        """
        return self.zero_out[index](self.copied_block(index, hidden, added, modulation, text))

    def copied_block(
        self, index: int, hidden: Tensor, added: Tensor, modulation: Modulation, text: BlockTexts
    ) -> Tensor:
        """F_c,l of `hidden` + `added`, [C, M, D]."""
        return self.bodies[index](hidden, modulation.blocks[index][-len(hidden) :], text[index], added)


class ControlledPrior(nn.Module):
    """eps_theta(z_n, n, z_r,delta, c): a frozen prior and the adapter beside it (section 3.3).

    Args:
        prior: Its parameters are frozen.
        adapter: Made for a prior of the same sizes.
        control_scale: delta, the weight of the adapter's residuals. With zero, or with Z1 = Z2 = 0, predictions are
            exactly the prior's.

    Raises:
        ValueError: The two were built for different sizes.
    """

    def __init__(self, prior: Prior, adapter: ControlAdapter, control_scale: float = 1.0):
        super().__init__()
        if prior.sizes != adapter.sizes:
            raise ValueError(f"control: the adapter was built for {adapter.sizes}, the prior has {prior.sizes}")
        self.prior = prior.requires_grad_(False)
        self.adapter = adapter
        self.control_scale = control_scale

    def train(self, mode: bool = True) -> ControlledPrior:
        """Only the adapter is ever in training mode."""
        super().train(mode)
        self.prior.eval()
        return self

    def forward(
        self,
        noisy: Tensor,
        step: Tensor,
        text_states: Tensor | None,
        text_mask: Tensor | None,
        control: Tensor,
        dropped: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise under control; see `Prior.forward`.

        Args:
            noisy: z_n [B, d].
            step: n [B].
            text_states: c [B', T, text_dim], or None.
            text_mask: [B', T] bool, or None.
            control: z_r,delta [B, d], a row for each of `noisy`.
            dropped: [C] bool, or None.

        Returns:
            eps [B, d] float32.

        Raises:
            ValueError: The shapes do not fit.
        """
        if control.shape != noisy.shape:
            raise ValueError(f"control: {tuple(control.shape)} does not match noisy {tuple(noisy.shape)}")
        if self.control_scale == 0.0:
            return self.prior(noisy, step, text_states, text_mask, dropped)
        context = self.prior.text_context(text_states, text_mask, self.prior.check(noisy, step), dropped)
        text, adapter_text = self.prior.text_keys_values(context), self.adapter.text_keys_values(context)
        modulation = self.prior.modulation(step)
        return self.denoise(noisy, modulation, text, ControlInputs(adapter_text, self.adapter.shift(control)))

    def denoise(self, noisy: Tensor, modulation: Modulation, text: BlockTexts, control: ControlInputs) -> Tensor:
        """Predict the noise from precomputed parts; the last C rows are controlled.

        Decoder block L - l + 1 gets delta times r_l on its input.

        Args:
            noisy: z_n [B, d].
            modulation: The prior's AdaLN outputs.
            text: The prior's keys and values.
            control: The adapter's inputs for the last C rows.

        Returns:
            eps [B, d] float32.
        """
        hidden, residuals = self.encode(noisy, modulation, text, control)
        if self.control_scale != 1.0:
            residuals = [self.control_scale * residual for residual in residuals]
        return self.prior.output(self.prior.decode(hidden, modulation, text, residuals[::-1]), modulation)

    def encode(
        self, noisy: Tensor, modulation: Modulation, text: BlockTexts, control: ControlInputs
    ) -> tuple[Tensor, list[Tensor]]:
        """h_L [B, M, D], and the residuals r_1 .. r_L, each [C, M, D]."""
        states = self.prior.encode(self.prior.embed(noisy), modulation, text)
        return states[-1], self.adapter(states, modulation, control)

"""The Control-Adapter: Stage 2's trained branch beside the frozen prior."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.fusion_diff.prior import Modulation, Prior
from pipeline.fusion_diff.texts import PackedText, TextContext, Texts


class ControlAdapter(nn.Module):
    """Copies of the prior's encoder bodies behind zero-initialised linear layers (Eq. 6).

    The copies have no AdaLN: they take the frozen prior's outputs. The adapter keeps no reference
    to the prior, so its parameters are exactly what Stage 2 trains.
    """

    def __init__(self, prior: Prior):
        super().__init__()
        sizes = prior.sizes
        self.sizes = sizes
        half = sizes.depth // 2
        self.bodies = nn.ModuleList(copy.deepcopy(prior.blocks[index].body) for index in range(half))
        self.bodies.requires_grad_(True)
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

    def text_keys_values(self, context: TextContext | PackedText) -> Texts:
        """Keys and values of every copy's cross-attention: once a query when sampling."""
        return [body.cross_attention.keys_values(context) for body in self.bodies]

    def forward(self, states: Sequence[Tensor], modulation: Modulation, text: Texts, shift: Tensor) -> list[Tensor]:
        """Residuals r_1 .. r_L, each [C, M, D], for the last C rows of the batch.

        states: the frozen encoder's h_0 .. h_L, each [B, M, D]. modulation: the frozen prior's.
        text: this adapter's keys and values for those C rows. shift: Z1(z_r,delta) [C, 1, D].

        h_c,0 = h_0 + Z1(z_r,delta);  r_l = Z2_l(F_c,l(h_c,l-1));  h_c,l = h_l + r_l  (Eq. 6).
        """
        rows, added, residuals = shift.shape[0], shift, []
        for index in range(len(self.bodies)):
            added = self.residual(index, states[index][-rows:], added, modulation, text)
            residuals.append(added)
        return residuals

    def residual(self, index: int, hidden: Tensor, added: Tensor, modulation: Modulation, text: Texts) -> Tensor:
        """r_l with l = index + 1, [C, M, D], from h_c,l-1: the sum of h_l-1 [C, M, D] and of r_l-1, or of the shift [C, 1, D]."""
        controlled = self.bodies[index](hidden, modulation.blocks[index][-len(hidden) :], text[index], added)
        return self.zero_out[index](controlled if isinstance(controlled, Tensor) else controlled.summed())


def encode_controlled(
    prior: Prior,
    adapter: ControlAdapter,
    noisy: Tensor,
    modulation: Modulation,
    text: Texts,
    adapter_text: Texts,
    shift: Tensor,
    beside: torch.cuda.Stream | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """h_L [B, M, D] and the residuals r_1 .. r_L, each [C, M, D].

    beside: a second stream of the GPU for the adapter. Its block l needs h_l-1, as the encoder's
    does, so that both run side by side where one alone leaves the GPU half empty.
    """
    if beside is None:
        states = prior.encode(prior.embed(noisy), modulation, text)
        return states[-1], adapter(states, modulation, adapter_text, shift)
    main, rows = torch.cuda.current_stream(), len(shift)
    states, residuals = [prior.embed(noisy)], []  # `states` keeps each h_l alive until the other stream is done with it
    for index in range(len(adapter.bodies)):
        beside.wait_stream(main)  # for h_l-1
        with torch.cuda.stream(beside):
            added = residuals[-1] if residuals else shift
            residuals.append(adapter.residual(index, states[-1][-rows:], added, modulation, adapter_text))
        states.append(prior.blocks[index](states[-1], modulation.blocks[index], text[index]))
    main.wait_stream(beside)
    return states[-1], residuals


def denoise_controlled(
    prior: Prior,
    adapter: ControlAdapter,
    noisy: Tensor,
    modulation: Modulation,
    text: Texts,
    adapter_text: Texts,
    shift: Tensor,
    control_scale: float,
    beside: torch.cuda.Stream | None = None,
) -> Tensor:
    """Predict the noise [B, d] from precomputed parts; the last C = len(shift) rows are controlled.

    Decoder block L - l + 1 gets control_scale (delta) times r_l on its input. beside: see `encode_controlled`.
    """
    hidden, residuals = encode_controlled(prior, adapter, noisy, modulation, text, adapter_text, shift, beside)
    scaled = residuals if control_scale == 1.0 else [control_scale * residual for residual in residuals]
    return prior.output(prior.decode(hidden, modulation, text, scaled[::-1]), modulation)


def controlled(
    prior: Prior,
    adapter: ControlAdapter,
    noisy: Tensor,
    step: Tensor,
    text_states: Tensor | None,
    text_mask: Tensor | None,
    control: Tensor,
    control_scale: float = 1.0,
    dropped: Tensor | None = None,
) -> Tensor:
    """eps_theta(z_n, n, z_r,delta, c): the prior's prediction under control (section 3.3).

    As `Prior.forward`, with control [B, d] a row for each of noisy's. With a control_scale of zero,
    or with Z1 = Z2 = 0, the result is exactly the prior's. Raises ValueError on shapes that do not fit.
    """
    if control.shape != noisy.shape:
        raise ValueError(f"control: {tuple(control.shape)} does not match noisy {tuple(noisy.shape)}")
    if control_scale == 0.0:
        return prior(noisy, step, text_states, text_mask, dropped)
    context = prior.text_context(text_states, text_mask, prior.check(noisy, step), dropped)
    text, adapter_text = prior.text_keys_values(context), adapter.text_keys_values(context)
    return denoise_controlled(
        prior, adapter, noisy, prior.modulation(step), text, adapter_text, adapter.shift(control), control_scale
    )


class ControlledPrior(nn.Module):
    """A frozen prior and the adapter beside it, as one module to train. Freezes `prior`."""

    def __init__(self, prior: Prior, adapter: ControlAdapter):
        super().__init__()
        if prior.sizes != adapter.sizes:
            raise ValueError(f"control: the adapter was built for {adapter.sizes}, the prior has {prior.sizes}")
        self.prior = prior.requires_grad_(False)
        self.adapter = adapter

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
        control_scale: float = 1.0,
        dropped: Tensor | None = None,
    ) -> Tensor:
        """See `controlled`."""
        return controlled(
            self.prior, self.adapter, noisy, step, text_states, text_mask, control, control_scale, dropped
        )

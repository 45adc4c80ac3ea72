"""The DiT prior: the noise predictor of Stage 1 over joint vision-language embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from pipeline.config import PriorParams
from pipeline.fusion_diff.layers import Block, modulate, sincos_positions, timestep_frequencies
from pipeline.fusion_diff.texts import BlockTexts, TextContext


@dataclass(frozen=True)
class PriorSizes:
    """Every size of the prior.

    Raises:
        ValueError: Two sizes do not go together; the message has their numbers.
    """

    dim: int
    """d: the dimension of the embeddings."""
    channels: int
    """C of the feature map that the projector P makes."""
    grid: int
    """G: P maps d to C x G x G."""
    patch_size: int
    """p: a patch is p x p of the map's G x G places."""
    width: int
    """D: the transformer's width."""
    heads: int
    depth: int
    """Blocks in all: depth / 2 encoder blocks, then as many decoder blocks."""
    ffn_ratio: int
    time_frequencies: int
    text_dim: int
    """Width of the text encoder's token states."""
    text_tokens: int
    """Tokens of the learned null condition, and the most tokens of a text."""

    @classmethod
    def from_params(cls, params: PriorParams, dim: int, text_dim: int, text_tokens: int) -> PriorSizes:
        """The configured sizes with those that follow the encoders."""
        return cls(
            dim=dim,
            channels=params.channels,
            grid=params.grid,
            patch_size=params.patch_size,
            width=params.width,
            heads=params.heads,
            depth=params.depth,
            ffn_ratio=params.ffn_ratio,
            time_frequencies=params.time_frequencies,
            text_dim=text_dim,
            text_tokens=text_tokens,
        )

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"prior: {name} = {value} must be at least 1")
        if self.grid % self.patch_size:
            raise ValueError(f"prior: grid {self.grid} is not a multiple of patch_size {self.patch_size}")
        if self.width % self.heads:
            raise ValueError(f"prior: width {self.width} is not a multiple of heads {self.heads}")
        if self.width % 4:
            wanted = "a multiple of 4, as sine-cosine positions of two axes need"
            raise ValueError(f"prior: width {self.width} is not {wanted}")
        if self.time_frequencies % 2:
            raise ValueError(f"prior: time_frequencies {self.time_frequencies} is odd; sines and cosines come in pairs")
        if self.depth % 2:
            raise ValueError(f"prior: depth {self.depth} is odd; half is the encoder, half the decoder")

    @property
    def patches(self) -> int:
        """Patches on a side."""
        return self.grid // self.patch_size

    @property
    def tokens(self) -> int:
        """M: tokens that the transformer sees."""
        return self.patches**2

    @property
    def patch_dim(self) -> int:
        """Numbers in one patch."""
        return self.channels * self.patch_size**2

    @property
    def features(self) -> int:
        """Numbers in the feature map that P makes."""
        return self.channels * self.grid**2


class Modulation(NamedTuple):
    """AdaLN outputs for some timesteps. They depend neither on the sample nor on the text."""

    blocks: tuple[Tensor, ...]
    """[B or 1, 9, D] for each block."""
    final: Tensor
    """[B or 1, 2, D]: shift and scale of the final layer."""

    def row(self, index: int) -> Modulation:
        """The outputs for one timestep, broadcast over a batch."""
        return Modulation(tuple(block[index : index + 1] for block in self.blocks), self.final[index : index + 1])


class Prior(nn.Module):
    """eps_theta(z_n, n, c): predicts the noise in z_n (section 3.2, Eq. 9 to 16).

    A row without a text takes the learned null condition. Such rows come first in a batch: with texts for B' of B
    rows, the first B - B' are unconditional. One call so serves training with dropped texts and both branches of
    Eq. 4, and dropped rows cost no padding of the others. For batches of one shape, every row has a text and
    `dropped` says which rows are not to see theirs.
    """

    positions: Tensor

    def __init__(self, sizes: PriorSizes):
        super().__init__()
        self.sizes = sizes
        width = sizes.width
        self.project = nn.Linear(sizes.dim, sizes.features)  # P of Eq. 10
        self.patch = nn.Linear(sizes.patch_dim, width)
        self.register_buffer("positions", sincos_positions(sizes.patches, width), persistent=False)  # [M, D]
        self.time = nn.Sequential(nn.Linear(sizes.time_frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.caption = nn.Sequential(
            nn.Linear(sizes.text_dim, width), nn.GELU(approximate="tanh"), nn.Linear(width, width)
        )
        self.null_text = nn.Parameter(torch.empty(sizes.text_tokens, sizes.text_dim))
        blocks = nn.ModuleList(Block(width, sizes.heads, sizes.ffn_ratio) for _ in range(sizes.depth))
        self.blocks = cast(Sequence[Block], blocks)
        self.final_ada_ln = nn.Linear(width, 2 * width)
        self.final = nn.Linear(width, sizes.patch_dim)
        self.out = nn.Linear(sizes.features, sizes.dim)  # Linear_out of Eq. 16
        initialise(self)

    def forward(
        self,
        noisy: Tensor,
        step: Tensor,
        text_states: Tensor | None = None,
        text_mask: Tensor | None = None,
        dropped: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise (Eq. 9).

        Args:
            noisy: z_n [B, d].
            step: n [B], integers from 0.
            text_states: c [B', T, text_dim] of the last B' <= B rows. None: no row has a text.
            text_mask: [B', T] bool, True at tokens; every row needs at least one. None: no padding.
            dropped: [C] bool, with B' = B: True at those of the first C rows that take the null condition instead.

        Returns:
            eps [B, d] float32.

        Raises:
            ValueError: The shapes do not fit.
        """
        context = self.text_context(text_states, text_mask, self.check(noisy, step), dropped)
        predicted = self.denoise(noisy, self.modulation(step), self.text_keys_values(context))
        if self.training and not context.has_null:
            # The null condition takes part in every step, as distributed training expects of a parameter.
            predicted = predicted + 0.0 * self.null_text.sum()
        return predicted

    def check(self, noisy: Tensor, step: Tensor) -> int:
        """The batch's rows B. ValueError when `noisy` is not [B, d] or `step` is not [B]."""
        if noisy.ndim != 2 or noisy.shape[1] != self.sizes.dim:
            raise ValueError(f"prior: noisy is {tuple(noisy.shape)}, expected [B, {self.sizes.dim}]")
        if step.shape != noisy.shape[:1]:
            raise ValueError(f"prior: step is {tuple(step.shape)}, expected [{noisy.shape[0]}]")
        return noisy.shape[0]

    # What does not depend on z_n, so that a sampler computes it once.

    def modulation(self, step: Tensor, added: Tensor | None = None) -> Modulation:
        """AdaLN outputs of all blocks for timesteps [B]. A sampler computes them once a schedule.

        `added` [B, D] is what a student sees beside the timestep.
        """
        features = timestep_frequencies(step, self.sizes.time_frequencies)  # [B, F]
        time = self.time(features.to(self.patch.weight.dtype))  # [B, D]
        time = F.silu(time if added is None else time + added)
        blocks = tuple(block.modulation(time) for block in self.blocks)  # each [B, 9, D]
        return Modulation(blocks, self.final_ada_ln(time).unflatten(1, (2, -1)))

    def text_context(
        self, text_states: Tensor | None, text_mask: Tensor | None, rows: int, dropped: Tensor | None = None
    ) -> TextContext:
        """Bring texts to the width, and the null condition where a row needs it.

        Args:
            text_states: [B', T, text_dim], or None.
            text_mask: [B', T] bool, or None.
            rows: B >= B'. The null condition is there when B > B', or with `dropped`.
            dropped: [C] bool, or None.

        Returns:
            The texts [B', T, D] with their mask.

        Raises:
            ValueError: There are more texts than rows, or the shapes do not fit.
        """
        texts = 0 if text_states is None else text_states.shape[0]
        if texts > rows:
            raise ValueError(f"prior: {texts} texts for {rows} rows")
        if dropped is not None and (texts != rows or not 1 <= len(dropped) <= rows):
            given = f"{tuple(dropped.shape)} dropped of {rows} rows with {texts} texts"
            raise ValueError(f"prior: {given}; each row needs one")
        null = self.caption(self.null_text)[None] if rows > texts or dropped is not None else None  # [1, N, D]
        if text_states is None or texts == 0:
            return TextContext(null, None, None)
        if text_states.ndim != 3 or text_states.shape[2] != self.sizes.text_dim:
            expected = f"expected [B, T, {self.sizes.text_dim}]"
            raise ValueError(f"prior: text states are {tuple(text_states.shape)}, {expected}")
        if text_mask is not None and text_mask.shape != text_states.shape[:2]:
            raise ValueError(f"prior: text mask is {tuple(text_mask.shape)}, the states are {tuple(text_states.shape)}")
        if not torch.is_autocast_enabled(text_states.device.type):  # it casts from half precision without a detour
            text_states = text_states.to(self.patch.weight.dtype)
        text = self.caption(text_states)  # [B', T, D]
        mask = None if text_mask is None else text_mask[:, None, None, :]
        return TextContext(null, text, mask, None if dropped is None else dropped[:, None, None])

    def text_keys_values(self, context: TextContext) -> BlockTexts:
        """Keys and values of every block's cross-attention. A sampler computes them once a query."""
        return [block.body.cross_attention.keys_values(context) for block in self.blocks]

    # From z_n to eps, in the order of the paper.

    def denoise(self, noisy: Tensor, modulation: Modulation, text: BlockTexts) -> Tensor:
        """Predict the noise [B, d] of `noisy` [B, d] from precomputed AdaLN outputs and text keys and values."""
        hidden = self.encode(self.embed(noisy), modulation, text)[-1]
        return self.output(self.decode(hidden, modulation, text), modulation)

    def embed(self, noisy: Tensor) -> Tensor:
        """z_n [B, d] -> tokens h_0 [B, M, D] (Eq. 10 and 11)."""
        sizes = self.sizes
        features = self.project(noisy.to(self.project.weight.dtype))  # [B, C*G*G]
        patches = rearrange(
            features,
            "b (c h p w q) -> b (h w) (p q c)",
            c=sizes.channels,
            h=sizes.patches,
            w=sizes.patches,
            p=sizes.patch_size,
            q=sizes.patch_size,
        )  # [B, M, p*p*C]
        tokens = self.patch(patches)
        return tokens + self.positions.to(tokens.dtype)  # under autocast the tokens, and so every h_l, are bfloat16

    def encode(self, hidden: Tensor, modulation: Modulation, text: BlockTexts) -> list[Tensor]:
        """Run the encoder half on h_0; returns h_0 .. h_L, each [B, M, D]."""
        states = [hidden]
        for index in range(self.sizes.depth // 2):
            states.append(self.blocks[index](states[-1], modulation.blocks[index], text[index]))
        return states

    def decode(
        self, hidden: Tensor, modulation: Modulation, text: BlockTexts, residuals: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Run the decoder half on h_L.

        Args:
            hidden: h_L [B, M, D].
            modulation: AdaLN outputs.
            text: Keys and values of the texts.
            residuals: [C, M, D] for each decoder block, in their order, added to the last C rows of its input.

        Returns:
            [B, M, D].
        """
        half = self.sizes.depth // 2
        for index in range(half, self.sizes.depth):
            added = None if residuals is None else residuals[index - half]
            hidden = self.blocks[index](hidden, modulation.blocks[index], text[index], added)
        return hidden

    def output(self, hidden: Tensor, modulation: Modulation) -> Tensor:
        """Tokens [B, M, D] -> eps [B, d] float32 (Eq. 16)."""
        shift, scale = modulation.final.split(1, dim=1)  # each [B or 1, 1, D]
        return self.unpatchify(modulate(hidden, shift, scale))

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """Modulated tokens [B, M, D] -> a feature map -> eps [B, d] float32."""
        sizes = self.sizes
        patches = self.final(tokens)  # [B, M, p*p*C]
        features = rearrange(
            patches,
            "b (h w) (p q c) -> b (c h p w q)",
            h=sizes.patches,
            w=sizes.patches,
            p=sizes.patch_size,
            q=sizes.patch_size,
            c=sizes.channels,
        )  # [B, C*G*G]
        return self.out(features).float()


def initialise(prior: Prior) -> None:
    """Initialise as DiT does.

    Linear layers by Xavier with zero biases; AdaLN, hence every gate, and the final layer zero: every block starts as
    the identity.
    """
    for module in prior.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for layer in prior.time:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
    nn.init.normal_(prior.null_text, std=prior.sizes.text_dim**-0.5)
    for zero in (*(block.ada_ln for block in prior.blocks), prior.final_ada_ln, prior.final):
        nn.init.zeros_(zero.weight)
        nn.init.zeros_(zero.bias)

"""The blocks that several encoders share, computed once for all of them.

Variants that are tuned from one backbone differ in its last blocks alone. In a gallery that each of them embeds, the
tokens before those blocks are the same, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.encoders.dual.interface import DualEncoder, ImageTextEncoder
from pipeline.encoders.image_source import ImageTable

KEPT_BYTES = 2**30
"""Tokens of more bytes are not kept: the batches behind them are computed anew by every encoder."""


class SharedBlocks:
    """Tokens behind the lower blocks, by batch, from the first encoder for all that are like it.

    Args:
        tuned: The last visual blocks, in which the encoders may differ.
        kept_bytes: Of all tokens together.
    """

    def __init__(self, tuned: int, kept_bytes: int = KEPT_BYTES):
        self._tuned, self._left = tuned, kept_bytes
        self._first: DualEncoder | None = None
        self._tokens: dict[tuple[Path, tuple[str, ...]], Tensor] = {}

    def join(self, encoder: ImageTextEncoder) -> ImageTextEncoder | SharingEncoder:
        """An encoder with this memory, where its lower blocks are those of the first that came; else itself."""
        if not isinstance(encoder, DualEncoder) or encoder.depth <= self._tuned:
            return encoder
        self._first = self._first or encoder
        alike = encoder is self._first or _alike(encoder, self._first, self._tuned)
        return SharingEncoder(encoder, self) if alike else encoder

    def tokens(self, encoder: DualEncoder, images: ImageTable, image_ids: Sequence[str]) -> Tensor:
        """What the first tuned block reads of B images, [B, T, W]."""
        place = (images.folder, tuple(image_ids))
        if place not in self._tokens:
            pixels = encoder.normalise(images.pixels(image_ids, encoder.image_size, encoder.fit))
            tokens = encoder.run(encoder.embed_patches(pixels), 0, self.cut(encoder))
            if tokens.nbytes > self._left:
                return tokens
            self._tokens[place] = tokens
            self._left -= tokens.nbytes
        return self._tokens[place]

    def cut(self, encoder: DualEncoder) -> int:
        """The first tuned block."""
        return encoder.depth - self._tuned


@dataclass(frozen=True)
class SharingEncoder:
    """An encoder that computes what others share only once."""

    encoder: DualEncoder
    shared: SharedBlocks

    @property
    def dim(self) -> int:
        """D."""
        return self.encoder.dim

    def encode(self, images: ImageTable, image_ids: Sequence[str]) -> Tensor:
        """f_I of B images, [B, D]: the same bits as the encoder's own `encode_image` gives."""
        encoder = self.encoder
        tokens = self.shared.tokens(encoder, images, image_ids)
        return encoder.project(encoder.run(tokens, self.shared.cut(encoder), encoder.depth)[:, 0])


def _alike(one: DualEncoder, other: DualEncoder, tuned: int) -> bool:
    """Whether two encoders agree in the images they see, and in every weight outside of the text towers and the end.

    A weight that takes a gradient is not the same as a frozen one: torch multiplies by it in another way.
    """
    kind = type(one) is type(other) and one.depth == other.depth
    if not kind or (one.image_size, one.fit) != (other.image_size, other.fit):
        return False
    blocks = [*one.image_blocks[one.depth - tuned :], *one.text_blocks]
    apart = [one.logit_scale, *one.image_head(), *one.text_head(), *(w for block in blocks for w in block.parameters())]
    passed, known = {id(weight) for weight in apart}, _weights(other)
    return all(
        name in known and weight.requires_grad == known[name].requires_grad and torch.equal(weight, known[name])
        for name, weight in _weights(one).items()
        if id(weight) not in passed
    )


def _weights(encoder: DualEncoder) -> dict[str, Tensor]:
    return {**dict(encoder.named_parameters()), **dict(encoder.named_buffers())}

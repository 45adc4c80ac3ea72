"""What the training loop asks of the decoder: the flow-matching loss of some images and their features."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config import DecoderParams
from pipeline.decoder.codec import Codec
from pipeline.decoder.flow import Flow
from pipeline.decoder.model import Decoder
from pipeline.encoders.training_images import Draws, LazyImages
from pipeline.fusion_diff.conditions import Vectors, check_vectors, send


class DecoderTask:
    """Images and their features; the examples are images.

    Args:
        decoder: The model to train.
        codec: Makes of an image what the decoder denoises.
        images: uint8 [N, 3, H, W]; see `training_images`.
        z: Features of unit norm [M, d].
        rows: Which of the features are the images' [N].
        params: Say how z is dropped and varied, and how noise is drawn.

    Raises:
        ValueError: The parts do not go together, or a feature is not finite; names its row.
    """

    def __init__(
        self,
        decoder: Decoder,
        codec: Codec,
        images: Tensor | LazyImages,
        z: Vectors,
        rows: Tensor,
        params: DecoderParams,
    ):
        if len(images) != len(rows):
            raise ValueError(f"decoder: {len(images)} images, but features of {len(rows)}")
        self.model: nn.Module = decoder
        self._codec, self._images, self._rows = codec, images, rows
        self._z = check_vectors(z, decoder.sizes.dim, "z")
        self._params, self._flow = params, Flow(params.shift)

    def __len__(self) -> int:
        return len(self._images)

    def look_ahead(self, batches: Iterable[Draws]) -> None:
        """See `Task`."""
        if isinstance(self._images, LazyImages):
            self._images.expect(batches, vary=False)

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device | str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean squared error of the velocity at indices [B]; every random number comes from `generator`."""
        images = self._images.take(indices, generator) if isinstance(self._images, LazyImages) else None
        images = self._images[indices] if images is None else images
        z = send(self._z[self._rows[indices]].float(), device)
        draws = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
        with torch.autocast(torch.device(device).type, enabled=False):
            clean = self._codec.encode(send(images, device))  # [B, C, S, S]
            level = self._flow.draw(len(clean), draws)
            noise = torch.randn(clean.shape, generator=draws, device=draws.device)
            noisy = self._flow.noise(clean, level, noise)
            dropped = torch.rand(len(z), generator=draws, device=draws.device) < self._params.p_drop
            z = F.normalize(z + self._params.z_noise * unit_variance(z, draws), dim=1)
        predicted = model(noisy, level, z, dropped)
        loss = F.mse_loss(predicted, noise - clean)
        return loss, {"mse": loss.detach()}


def unit_variance(z: Tensor, generator: torch.Generator) -> Tensor:
    """Noise like z [B, d], of length 1 on average."""
    return torch.randn(z.shape, generator=generator, device=z.device) / math.sqrt(z.shape[1])

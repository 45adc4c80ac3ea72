"""Between pixels and what the decoder denoises: the pixels themselves, or the latents of SANA's autoencoder."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from diffusers import AutoencoderDC
from torch import Tensor

from pipeline.encoders.hub import not_loaded


class Codec(Protocol):
    """Both ways between uint8 images [B, 3, H, W] and float32 [B, C, S, S] of about unit variance."""

    def encode(self, images: Tensor) -> Tensor: ...

    def decode(self, denoised: Tensor) -> Tensor: ...


class Pixels:
    """Pixels from -1 to 1."""

    def encode(self, images: Tensor) -> Tensor:
        return images.float() / 127.5 - 1.0

    def decode(self, denoised: Tensor) -> Tensor:
        return ((denoised + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


class Latents:
    """The latents of `diffusers`' AutoencoderDC.

    Args:
        autoencoder: It. It is not trained.
    """

    def __init__(self, autoencoder: Any):
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self._scale = autoencoder.config.scaling_factor

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        pixels = Pixels().encode(images).to(self.autoencoder.dtype)
        return self._scale * self.autoencoder.encode(pixels, return_dict=False)[0].float()

    @torch.no_grad()
    def decode(self, denoised: Tensor) -> Tensor:
        latents = (denoised / self._scale).to(self.autoencoder.dtype)
        return Pixels().decode(self.autoencoder.decode(latents, return_dict=False)[0].float())


def open_codec(checkpoint: str, revision: str, device: torch.device | str) -> Codec:
    """The codec that a decoder works with.

    Args:
        checkpoint: SANA's, which has the autoencoder; empty: pixels.
        revision: Of the checkpoint.
        device: Where images are.

    Raises:
        ArtifactError: The autoencoder cannot be loaded.
    """
    if not checkpoint:
        return Pixels()
    dtype = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
    return Latents(load_part(AutoencoderDC, "vae", checkpoint, revision).to(device, dtype))


def load_part(kind: Any, folder: str, checkpoint: str, revision: str) -> Any:
    """A model of `diffusers` from a subfolder of SANA's checkpoint.

    Args:
        kind: Its class.
        folder: The subfolder.
        checkpoint: A folder or a hub name.
        revision: Of the hub's.

    Raises:
        ArtifactError: It is not there, or cannot be loaded.
    """
    try:
        return kind.from_pretrained(checkpoint, subfolder=folder, revision=revision or None)
    except (OSError, ValueError, RuntimeError) as error:
        raise not_loaded("decoder.checkpoint", checkpoint, revision, error) from None

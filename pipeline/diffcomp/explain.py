"""What DiffComp sees in one image and one text: figures 3, 4 and 5 of the supplement as functions.

The model is one of `load_diffcomp`, on any device. Maps cover the square that the encoder sees of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.diffcomp.batch import Batch, Phrases
from pipeline.diffcomp.model import DiffComp
from pipeline.encoders.image_source import centre_square, square_pixels

SIDE = 320
"""Of a heat map, in pixels."""


def masking_probabilities(model: DiffComp, image: Image.Image, text: str, phrases: Sequence[str] = ()) -> np.ndarray:
    """The probability that PSM masks each patch of an image (figure 3).

    Args:
        model: A trained variant, on any device.
        image: RGB.
        text: Its caption.
        phrases: The phrases of `text`; empty: the whole text guides.

    Returns:
        [h, w] in [0, 1].
    """
    return model.mask_map(_pixels(model, [image]), _phrases(model, [text], [phrases]))[0].float().cpu().numpy()


def kept_of_reference(model: DiffComp, image: Image.Image, text: str) -> np.ndarray:
    """How much of each patch of a reference stays under a modification (figure 5).

    Args:
        model: A trained variant, on any device.
        image: The reference, RGB.
        text: The modification.

    Returns:
        1 - lambda_j of every patch, [h, w] in [0, 1].
    """
    return model.kept_map(_pixels(model, [image]), _tokens(model, [text]))[0].float().cpu().numpy()


def pair_similarities(
    model: DiffComp,
    images: Sequence[Image.Image],
    texts: Sequence[str],
    phrases: Sequence[Sequence[str]] | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> tuple[np.ndarray, np.ndarray]:
    """How near images are to their captions, as they are and as the model masks them in training (figure 4).

    Args:
        model: A trained variant, on any device.
        images: N of them, RGB.
        texts: Their captions.
        phrases: Of every text, as for `masking_probabilities`.
        seed: What masks are drawn from, batch by batch.
        batch_size: Pairs at once.

    Returns:
        cos(f_I, f_T) and cos(f_Id, f_T), [N] each.
    """
    generator, parts = torch.Generator().manual_seed(seed), []
    phrases = [()] * len(texts) if phrases is None else phrases
    for start in range(0, len(texts), batch_size):
        rows = slice(start, start + batch_size)
        guides = _phrases(model, texts[rows], phrases[rows])
        batch = Batch(_pixels(model, images[rows]), _tokens(model, texts[rows]), phrases=guides)
        pair = model.similarities(batch, generator)
        parts.append(torch.stack(pair).float().cpu())
    aligned, masked = torch.cat(parts, dim=1).numpy()
    return aligned, masked


def image_text_similarities(
    model: DiffComp, images: Sequence[Image.Image], texts: Sequence[str], batch_size: int = 64
) -> np.ndarray:
    """How near references are to their modifications.

    Args:
        model: A trained variant, on any device.
        images: N references, RGB.
        texts: Their modifications.
        batch_size: Pairs at once.

    Returns:
        cos(f_I, f_T), [N].
    """
    parts = []
    for start in range(0, len(texts), batch_size):
        rows = slice(start, start + batch_size)
        with torch.inference_mode():
            image, text = (
                model.encode_image(_pixels(model, images[rows])),
                model.encode_text(_tokens(model, texts[rows])),
            )
            parts.append((image * text).sum(-1).float().cpu())
    return torch.cat(parts).numpy()


def heat_map(
    image: Image.Image, values: np.ndarray, side: int = SIDE, limits: tuple[float, float] | None = None
) -> Image.Image:
    """Values over the square that the encoder sees of an image, brighter where they are larger.

    Args:
        image: RGB.
        values: [h, w].
        side: Of the result, in pixels.
        limits: What is darkest and what is brightest; None: the lowest and the highest value.
    """
    low, high = limits or (float(values.min()), float(values.max()))
    scaled = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    colours = (matplotlib.colormaps["inferno"](scaled)[..., :3] * 255).astype(np.uint8)
    heat = Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST)
    return Image.blend(centre_square(image, side), heat, 0.6)


def _pixels(model: DiffComp, images: Sequence[Image.Image]) -> Tensor:
    return model.encoder.normalise(torch.stack([square_pixels(image, model.encoder.image_size) for image in images]))


def _tokens(model: DiffComp, texts: Sequence[str]) -> Tensor:
    return model.encoder.tokenize(list(texts)).to(model.encoder.mean.device)


def _phrases(model: DiffComp, texts: Sequence[str], phrases: Sequence[Sequence[str]]) -> Phrases:
    """The phrases of all texts in order; a text without any stands for itself."""
    filled = [list(own) or [text] for text, own in zip(texts, phrases, strict=True)]
    offsets = torch.tensor([0] + [len(own) for own in filled]).cumsum(0)
    ids = _tokens(model, [phrase for own in filled for phrase in own])
    return Phrases(ids, offsets.to(model.encoder.mean.device))

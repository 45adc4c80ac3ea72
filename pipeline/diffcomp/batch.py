"""What DiffComp trains on: a batch of captioned images. B images, P phrases, C tokens a text."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Phrases:
    """The phrases of B texts, one after the other."""

    ids: Tensor
    """Token ids of all phrases [P, C]."""
    offsets: Tensor
    """Where each text's phrases begin, and P at the end [B + 1]."""


@dataclass(frozen=True)
class Relatives:
    """Images that look alike and are called otherwise, one for each image of a batch."""

    images: Tensor
    """Normalised [B, 3, H, W]. They fill what is masked, and f_comp must tell f_I from them."""
    labels: Tensor
    """Equal numbers where captions are equal, as `Batch.labels` [B]."""


@dataclass(frozen=True)
class Batch:
    """Images and the texts that belong to them."""

    images: Tensor
    """Normalised [B, 3, H, W]."""
    text_ids: Tensor
    """The whole captions [B, C]."""
    composition_ids: Tensor | None = None
    """What each image is composed with [B, C]; None: the captions."""
    phrases: Phrases | None = None
    """What guides the masks; read by phrase masking only."""
    labels: Tensor | None = None
    """Equal numbers where two captions are equal [B]; None: all differ."""
    relatives: Relatives | None = None
    """What fills the masks; None: masked patches are hidden."""

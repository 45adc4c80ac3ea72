"""What a peer is: a model that composes a reference's feature with a text, and a way to train it.

Symbols: B queries, D joint width of the backbone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from pipeline.config import OptimiserParams, PeersParams
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.training import Run

if TYPE_CHECKING:
    from pipeline.peers.corpus import Corpus


class Peer(nn.Module, ABC):
    """A trained method. What it stores is its own part: a frozen backbone is not stored with it.

    Args:
        encoder: The backbone. A method that tunes it works on a copy, and registers that as a module of its own.
    """

    def __init__(self, encoder: ImageTextEncoder):
        super().__init__()
        self._frozen = (encoder,)  # in a tuple, so that it is neither stored nor trained

    @property
    def encoder(self) -> ImageTextEncoder:
        """What embeds references and gallery."""
        return self._frozen[0]

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """f_T of B texts by `encoder`, [B, D]."""
        return self.encoder.encode_text(self.encoder.tokenize(texts).to(self.encoder.mean.device))

    @abstractmethod
    def compose(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """Query vectors.

        Args:
            images: The references' features f_I by `encoder`, [B, D], L2-normalised.
            texts: B modifications.

        Returns:
            [B, D], L2-normalised, to compare with the features of the gallery.
        """


class Trained(NamedTuple):
    """How a method is made and trained."""

    new: Callable[[ImageTextEncoder, PeersParams], Peer]
    """An untrained one over a backbone."""
    train: Callable[[Peer, Corpus, Run], list[dict[str, float]]]
    """Trains it in place and returns the log. Its checkpoints lie in the run's folder."""
    section: Callable[[PeersParams], OptimiserParams]
    """The method's section of `peers`."""
    table: Callable[[PeersParams], Path | None] = lambda _: None
    """A table that it is trained on beside the pairs."""

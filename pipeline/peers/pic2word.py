"""Pic2Word (Saito et al., CVPR 2023): a word that stands for an image among all others.

L = contrastive(f_I(x), f_T("a photo of v*")), v* = phi(f_I(x)); both towers stay frozen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.config import PeersParams
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.peers.corpus import Corpus
from pipeline.peers.interface import Peer
from pipeline.peers.losses import contrastive
from pipeline.peers.pseudo_word import PseudoWordPeer, encode_prompts
from pipeline.training import Run
from pipeline.training import train as run_training


class Pic2Word(PseudoWordPeer):
    """The mapper of images, and the temperature of its loss."""

    def __init__(self, encoder: ImageTextEncoder, params: PeersParams):
        super().__init__(encoder, params.pic2word)
        self.temperature = params.pic2word.temperature


class Pic2WordTask:
    """Images alone.

    Args:
        model: What is trained.
        features: f_I of N images, [N, D].
    """

    def __init__(self, model: Pic2Word, features: Tensor):
        self.model, self.features = model, features

    def __len__(self) -> int:
        return len(self.features)

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device | str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Task.loss`."""
        images = self.features[indices].to(device)
        words = self.model.mapper(images, generator)
        texts = encode_prompts(self.model.encoder, [self.model.params.prompt] * len(words), words)
        return contrastive(images, texts, self.model.temperature), {}


def new(encoder: ImageTextEncoder, params: PeersParams) -> Pic2Word:
    """See `Trained.new`."""
    return Pic2Word(encoder, params)


def train(peer: Peer, corpus: Corpus, run: Run) -> list[dict[str, float]]:
    """See `Trained.train`."""
    assert isinstance(peer, Pic2Word)
    return run_training(Pic2WordTask(peer, corpus.image_features), corpus.params.peers.pic2word, run)

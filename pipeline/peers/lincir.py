"""LinCIR (Gu et al., CVPR 2024): a word that stands for a caption's keywords, learned from captions alone.

L = MSE(f_T(c with v* for its keywords), f_T(c)), v* = phi(f_T(c) + noise). At inference phi reads an image's
feature; the noise has taught it to stand the gap between the two towers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config import PeersParams
from pipeline.config.peers import PLACEHOLDER
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.peers.corpus import Corpus
from pipeline.peers.interface import Peer
from pipeline.peers.pseudo_word import PseudoWordPeer, prompt_tokens
from pipeline.text.phrases import PhraseParser
from pipeline.training import Run
from pipeline.training import train as run_training


class LinCir(PseudoWordPeer):
    """The mapper of captions, and the bound of its noise."""

    def __init__(self, encoder: ImageTextEncoder, params: PeersParams):
        super().__init__(encoder, params.lincir)
        self.noise = params.lincir.noise


def without_keywords(caption: str, keywords: Sequence[str]) -> str:
    """A caption with * for each of its keywords: "red car on a road", [red car, road] -> "* on a *".

    Args:
        caption: As it was written.
        keywords: Runs of adjectives and nouns in it; without any, * stands for the whole caption.
    """
    longest_first = sorted(keywords, key=len, reverse=True)
    pattern = "|".join(rf"(?<!\w){re.escape(keyword)}(?!\w)" for keyword in longest_first)
    found = re.sub(pattern, f" {PLACEHOLDER} ", caption.replace(PLACEHOLDER, " ")) if keywords else PLACEHOLDER
    return " ".join(found.split()) if PLACEHOLDER in found else PLACEHOLDER


class LinCirTask:
    """Captions alone, each distinct one once.

    Args:
        model: What is trained.
        captions: N captions.
        keywords: Those of each.
        features: f_T of the captions, [N, D].
    """

    def __init__(self, model: LinCir, captions: Sequence[str], keywords: Sequence[Sequence[str]], features: Tensor):
        self.model, self.features = model, features
        masked = [without_keywords(caption, words) for caption, words in zip(captions, keywords, strict=True)]
        self.token_ids, self.places = prompt_tokens(model.encoder, masked)

    def __len__(self) -> int:
        return len(self.features)

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device | str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Task.loss`."""
        captions = self.features[indices]
        noise = torch.randn(captions.shape, generator=generator) * torch.rand(len(captions), 1, generator=generator)
        words = self.model.mapper((captions + self.model.noise * noise).to(device), generator)
        masked = self.model.encoder.encode_with_words(self.token_ids[indices], self.places[indices], words)
        return F.mse_loss(masked, captions.to(device)), {}


def new(encoder: ImageTextEncoder, params: PeersParams) -> LinCir:
    """See `Trained.new`."""
    return LinCir(encoder, params)


def train(peer: Peer, corpus: Corpus, run: Run) -> list[dict[str, float]]:
    """See `Trained.train`."""
    assert isinstance(peer, LinCir)
    captions = list(dict.fromkeys(corpus.captions))
    keywords = PhraseParser(corpus.params.captions.spacy_model).noun_phrases(captions)
    task = LinCirTask(peer, captions, keywords, corpus.text_features(captions))
    return run_training(task, corpus.params.peers.lincir, run)

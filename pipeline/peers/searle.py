"""SEARLE (Baldrati et al., ICCV 2023): words found by optimisation for single images, then distilled into a mapper.

1. Inversion: L = (1 - cos(f_I(x), f_T("a photo of v*"))) + w L_concept(v*)
2. Distillation: L = contrastive(phi(f_I(x)), v*) + w' L_concept(phi(f_I(x)))

L_concept: see `Concepts.loss`.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from pipeline.config import PeersParams, SearleParams
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.peers.concepts import Concepts
from pipeline.peers.corpus import Corpus
from pipeline.peers.interface import Peer
from pipeline.peers.losses import contrastive, cosine_distance
from pipeline.peers.pseudo_word import PseudoWordPeer, encode_prompts
from pipeline.text.phrases import nouns
from pipeline.training import Run
from pipeline.training import train as run_training


class Searle(PseudoWordPeer):
    """The mapper of images."""

    params: SearleParams

    def __init__(self, encoder: ImageTextEncoder, params: PeersParams):
        super().__init__(encoder, params.searle)


class Words(nn.Module):
    """v* of M images, [M, E]. They begin at random, with the deviation of a word of the text tower."""

    def __init__(self, encoder: ImageTextEncoder, count: int):
        super().__init__()
        token_ids = encoder.tokenize(["*"]).to(encoder.mean.device)
        start = encoder.word_embedding(token_ids)[0, :1].detach()  # [1, E]
        self.table = nn.Parameter(torch.randn(count, start.shape[1]).to(start) * start.std())


class InversionTask:
    """Every image's own word; the images do not see each other.

    Args:
        model: The words.
        params: SEARLE's.
        features: f_I of the M images, [M, D].
        concepts: Keep words near them.
    """

    def __init__(self, model: Words, params: SearleParams, features: Tensor, concepts: Concepts):
        self.model, self.params, self.features, self.concepts = model, params, features, concepts
        self.nearest = concepts.nearest(features, params.inversion.concepts)

    def __len__(self) -> int:
        return len(self.features)

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device | str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Task.loss`."""
        words = self.model.table[indices.to(device)]
        texts = encode_prompts(self.concepts.encoder, [self.params.prompt] * len(words), words)
        image = cosine_distance(texts, self.features[indices].to(device))
        concept = self.concepts.loss(words, self.nearest[indices], generator)
        total = image + self.params.inversion.concept_weight * concept
        return total, {"image": image.detach(), "concept": concept.detach()}


class DistillationTask:
    """Images with the words that inversion has found.

    Args:
        model: What is trained.
        features: f_I of the M images, [M, D].
        words: Their v*, [M, E].
        concepts: Keep words near them.
    """

    def __init__(self, model: Searle, features: Tensor, words: Tensor, concepts: Concepts):
        self.model, self.features, self.words, self.concepts = model, features, words, concepts
        self.nearest = concepts.nearest(features, model.params.inversion.concepts)

    def __len__(self) -> int:
        return len(self.features)

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device | str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Task.loss`."""
        params, found = self.model.params, self.words[indices].to(device)
        words = self.model.mapper(self.features[indices].to(device), generator)
        distilled = contrastive(words, found, params.temperature)
        concept = self.concepts.loss(words, self.nearest[indices], generator)
        total = distilled + params.concept_weight * concept
        return total, {"distilled": distilled.detach(), "concept": concept.detach()}


def new(encoder: ImageTextEncoder, params: PeersParams) -> Searle:
    """See `Trained.new`."""
    return Searle(encoder, params)


def train(peer: Peer, corpus: Corpus, run: Run) -> list[dict[str, float]]:
    """See `Trained.train`. The log is the distillation's."""
    assert isinstance(peer, Searle)
    captions, encoder = corpus.captions, corpus.encoder
    concepts = Concepts(encoder, captions, nouns(captions, corpus.params.captions), corpus.text_features)
    count = min(peer.params.inversion.batch_size, len(captions))
    features = corpus.image_features[torch.arange(count) * len(captions) // count]  # spread over all sources
    words = inverted(peer.params, features, concepts, run)
    return run_training(DistillationTask(peer, features, words, concepts), peer.params, run)


def inverted(params: SearleParams, features: Tensor, concepts: Concepts, run: Run) -> Tensor:
    """The words of M images, [M, E], on the CPU.

    Args:
        params: SEARLE's.
        features: f_I of the images, [M, D].
        concepts: Keep words near them.
        run: SEARLE's; the inversion's checkpoint lies in a folder of its own below it.
    """
    model = Words(concepts.encoder, len(features)).to(concepts.encoder.mean.device)
    section = dataclasses.replace(params.inversion, batch_size=len(features))
    if section.micro_batch_size and len(features) % section.micro_batch_size:
        section = dataclasses.replace(section, micro_batch_size=0)
    own = dataclasses.replace(run, folder=run.folder / "inversion", title=f"{run.title}, inversion")
    run_training(InversionTask(model, params, features, concepts), section, own)
    return model.table.detach().cpu()

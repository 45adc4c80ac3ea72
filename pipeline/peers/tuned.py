"""What the peers share that tune the backbone itself: a copy of it, and captioned images to train on."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pipeline.config.peers import TunedParams
from pipeline.diffcomp import slerp
from pipeline.encoders.dual.interface import DualEncoder, ImageTextEncoder
from pipeline.encoders.training_images import Draws, LazyImages, training_images, varied
from pipeline.peers.corpus import Corpus
from pipeline.peers.interface import Peer


class TunedPeer(Peer):
    """A peer with a backbone of its own, of which the last blocks are trained.

    Args:
        encoder: The backbone, which stays as it is.
        params: How much of the copy is trained, and the text's weight in a query.
        text_layers: Blocks of the text tower that are trained.

    Raises:
        ValueError: The backbone cannot be taken apart, or has fewer blocks.
    """

    def __init__(self, encoder: ImageTextEncoder, params: TunedParams, text_layers: int):
        super().__init__(encoder)
        if not isinstance(encoder, DualEncoder):
            raise ValueError(f"{params.section}: a backbone of type {type(encoder).__name__} cannot be tuned")
        self.params = params
        self.tuned = copy.deepcopy(encoder)
        self.tuned.gradient_checkpointing = params.gradient_checkpointing
        try:
            self.tuned.freeze_all_but(params.image_layers, text_layers)
        except ValueError as error:
            raise ValueError(f"{params.section}.{error}") from None

    @property
    def encoder(self) -> DualEncoder:
        return self.tuned

    def compose(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """See `Peer.compose`: slerp(f_I, f_T; `text_weight`)."""
        return slerp(images, self.encode_texts(texts), self.params.text_weight)

    @abstractmethod
    def loss(self, images: Tensor, captions: CaptionBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of captioned images.

        Args:
            images: Normalised pixels [B, 3, H, W].
            captions: Their captions.
            generator: Every draw is its.

        Returns:
            Scalars: `loss`, and what else is to be logged.
        """

    def forward(self, images: Tensor, captions: CaptionBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `loss`."""
        return self.loss(images, captions, generator)


class CaptionBatch:
    """The captions of B images.

    Args:
        texts: B captions.
        features: f_T by the untouched backbone, [B, D].
        labels: [B], equal where captions are.
    """

    def __init__(self, texts: Sequence[str], features: Tensor, labels: Tensor):
        self.texts, self.features, self.labels = texts, features, labels


class CaptionedImages:
    """Image-caption pairs as a task for a tuned peer.

    Args:
        model: What is trained.
        images: uint8 [N, 3, H, W] at the encoder's size.
        captions: One a pair.
        features: f_T of the captions by the untouched backbone, [N, D].
    """

    def __init__(self, model: TunedPeer, images: Tensor | LazyImages, captions: Sequence[str], features: Tensor):
        self.model, self.images, self.captions, self.features = model, images, captions, features
        numbers = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
        self.labels = torch.tensor([numbers[caption] for caption in captions])

    def __len__(self) -> int:
        return len(self.images)

    def look_ahead(self, batches: Iterable[Draws]) -> None:
        """See `Task`."""
        if isinstance(self.images, LazyImages):
            self.images.expect(batches, self.model.params.augment)

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device | str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Task.loss`."""
        images = self.images.take(indices, generator) if isinstance(self.images, LazyImages) else None
        if images is None:
            images = self.images[indices]
            images = varied(images, generator) if self.model.params.augment else images
        captions = CaptionBatch(
            [self.captions[index] for index in indices.tolist()],
            self.features[indices].to(device),
            self.labels[indices].to(device),
        )
        terms = model(self.model.tuned.normalise(images.to(device)), captions, generator)
        return terms.pop("loss"), {name: value.detach() for name, value in terms.items()}


def captioned_images(model: TunedPeer, corpus: Corpus) -> CaptionedImages:
    """The corpus as the task of a tuned peer."""
    ids, workers = [row["image_id"] for row in corpus.rows], max(1, corpus.params.jobs.workers)
    images = training_images(corpus.table, ids, model.tuned.image_size, workers)
    return CaptionedImages(model, images, corpus.captions, corpus.caption_features)

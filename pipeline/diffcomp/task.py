"""DiffComp as a task of the one training loop: what a batch is, and its loss."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pipeline.diffcomp.batch import Batch, Phrases, Relatives
from pipeline.diffcomp.model import DiffComp
from pipeline.diffcomp.relatives import difference, nearest_relatives
from pipeline.encoders.training_images import Draws, LazyImages, varied
from pipeline.text.carriers import among_carrier_words

logger = logging.getLogger(__name__)
ENCODED_AT_ONCE = 64
"""Images, while relatives are looked for: with more, the blocks' outputs outgrow the memory that is kept for them."""
THRESHOLD_IMAGES = 256
"""About so many, from all over the set, decide where the masks' threshold starts."""


class DiffCompTask:
    """Image-caption pairs for `DiffComp`.

    `params.text` decides what is composed with: the caption, or what it says and the relative's does not.

    Args:
        model: What is trained.
        images: uint8 [N, 3, H, W] at the encoder's size; see `training_images`.
        captions: One a pair.
        phrases: What guides masking at granularity phrase or noun; where a pair has none, the caption stands in.
            Granularity sentence takes the captions.
        words: Carrier words, which `params.carriers` needs.

    Raises:
        ValueError: Lengths or sizes do not agree, or carrier words are needed and absent.
    """

    def __init__(
        self,
        model: DiffComp,
        images: Tensor | LazyImages,
        captions: Sequence[str],
        phrases: Sequence[Sequence[str]],
        words: Sequence[str] = (),
    ):
        params, size = model.params, model.encoder.image_size
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (3, size, size):
            raise ValueError(
                f"images are {images.dtype} {tuple(images.shape[1:])}, the encoder wants uint8 (3, {size}, {size})"
            )
        guides = [[caption] for caption in captions] if params.granularity == "sentence" else phrases
        if not len(images) == len(captions) == len(guides):
            raise ValueError(f"{len(images)} images, {len(captions)} captions, {len(guides)} lists of phrases")
        if params.carriers and not words:
            raise ValueError(f"carriers {params.carriers} needs words to carry a text among")
        self.model, self.images, self.captions, self.words = model, images, list(captions), list(words)
        self._table: dict[str, int] = {}
        self.caption_rows = torch.tensor([self._row(caption) for caption in captions], dtype=torch.long)
        self.guide_rows, self.guide_starts = self._ragged(self._filled(guides))
        self.token_ids = model.encoder.tokenize(list(self._table))  # [distinct texts, C]
        if params.fill == "relative":
            self._find_relatives()
        if model.masking == "phrase":
            spread = torch.arange(0, len(self), -(-len(self) // THRESHOLD_IMAGES))
            pixels = model.encoder.normalise(self.images[spread])
            model.start_threshold(pixels, self._guides(spread, model.encoder.mean.device))

    def __len__(self) -> int:
        return len(self.images)

    def look_ahead(self, batches: Iterable[Draws]) -> None:
        """See `Task`."""
        if isinstance(self.images, LazyImages):
            self.images.expect(batches, self.model.params.augment)

    def loss(
        self,
        model: nn.Module,
        indices: Tensor,
        generator: torch.Generator,
        device: torch.device | str,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One batch's loss.

        Args:
            model: This task's model, possibly wrapped.
            indices: The batch's rows [B].
            generator: Every draw is its.
            device: Where the model is.

        Returns:
            The loss, and scalars to log.
        """
        images = self._pixels(indices, generator, device)
        captions = self.caption_rows[indices]
        relatives = self._draw_relatives(indices, generator)
        composed = self.model.encoder.tokenize(self._composition_texts(indices, generator, relatives))
        batch = Batch(
            images,
            self.token_ids[captions].to(device),
            composed.to(device),
            self._guides(indices, device),
            captions.to(device),
            None if relatives is None else self._relative_images(relatives, generator, device),
        )
        terms = model(batch, generator)
        return terms.pop("loss"), {name: value.detach() for name, value in terms.items()}

    def _guides(self, indices: Tensor, device: torch.device | str) -> Phrases:
        """The phrases that guide the masks of some pairs [B]."""
        rows, offsets = self._slices(self.guide_rows, self.guide_starts, indices)
        return Phrases(self.token_ids[rows].to(device), offsets)

    def _relative_images(self, rows: Tensor, generator: torch.Generator, device: torch.device | str) -> Relatives:
        """The relatives of a batch, by their rows [B]."""
        return Relatives(self._pixels(rows, generator, device), self.caption_rows[rows].to(device))

    def _pixels(self, rows: Tensor, generator: torch.Generator, device: torch.device | str) -> Tensor:
        """Normalised images [B, 3, H, W], augmented where the parameters say so."""
        images = self.images.take(rows, generator) if isinstance(self.images, LazyImages) else None
        if images is None:
            images = self.images[rows]
            images = varied(images, generator) if self.model.params.augment else images
        return self.model.encoder.normalise(images.to(device))

    def _composition_texts(
        self, indices: Tensor, generator: torch.Generator, relatives: Tensor | None = None
    ) -> list[str]:
        """What each sample is composed with; see the class."""
        params = self.model.params
        texts = [self.captions[index] for index in indices.tolist()]
        if params.text == "difference" and relatives is not None:
            texts = [difference(text, self.captions[row]) for text, row in zip(texts, relatives.tolist(), strict=True)]
        if params.carriers:
            draws = random.Random(int(torch.randint(2**62, (), generator=generator)))
            texts = [
                among_carrier_words(text, self.words, draws) if draws.random() < params.carriers else text
                for text in texts
            ]
        return texts

    def _draw_relatives(self, indices: Tensor, generator: torch.Generator) -> Tensor | None:
        """The row of each sample's relative, [B]; None where nothing fills the masks."""
        if self.model.params.fill != "relative":
            return None
        choice = torch.randint(self._relatives.shape[1], (len(indices), 1), generator=generator)
        return self._relatives[indices].gather(1, choice)[:, 0]

    @torch.no_grad()
    def _find_relatives(self) -> None:
        """Every image's nearest relatives, by the encoder before training."""
        encoder = self.model.encoder
        images = [
            encoder.encode_image(encoder.normalise(self.images[rows])).cpu()
            for rows in torch.arange(len(self)).split(ENCODED_AT_ONCE)
        ]
        self._relatives = nearest_relatives(torch.cat(images), self.caption_rows, self.model.params.relatives)

    def _row(self, text: str) -> int:
        return self._table.setdefault(text, len(self._table))

    def _filled(self, lists: Sequence[Sequence[str]]) -> list[list[str]]:
        """Every sample's phrases, or its caption where it has none."""
        empty = sum(not phrases for phrases in lists)
        if empty:
            logger.info("%d of %d captions have no phrases: the whole caption stands in", empty, len(lists))
        return [list(phrases) or [caption] for phrases, caption in zip(lists, self.captions, strict=True)]

    def _ragged(self, lists: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """Rows of all phrases in order [P_total] and where each sample's begin [N + 1]."""
        rows = torch.tensor([self._row(text) for texts in lists for text in texts], dtype=torch.long)
        counts = torch.tensor([0] + [len(texts) for texts in lists])
        return rows, counts.cumsum(0)

    @staticmethod
    def _slices(rows: Tensor, starts: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The ragged lists of the given samples, joined, and their offsets [B + 1]."""
        counts = starts[indices + 1] - starts[indices]
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        index = (
            torch.arange(int(offsets[-1]))
            - offsets[:-1].repeat_interleave(counts)
            + starts[indices].repeat_interleave(counts)
        )
        return rows[index], offsets

"""DiffComp as a task of the one training loop: what a batch is, and its loss."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.diffcomp.model import DiffComp
from pipeline.diffcomp.relatives import nearest_relatives, telling_phrases
from pipeline.encoders.augment import augment

logger = logging.getLogger(__name__)
BATCH = 256


class DiffCompTask:
    """Image-caption pairs for `DiffComp`.

    images: uint8 [N, 3, H, W] at the encoder's size; captions: one a pair; phrases: each pair's noun
    phrases, which may be empty (the caption stands in). mask_phrases: what guides masking where it is
    not the phrases: the nouns of granularity noun, which it must then supply; granularity sentence
    takes the captions. params.text decides what is composed with: caption | phrase | mixed (a coin
    for every sample). Raises ValueError where lengths or sizes do not agree.
    """

    def __init__(
        self, model: DiffComp, images: Tensor, captions: Sequence[str], phrases: Sequence[Sequence[str]],
        mask_phrases: Sequence[Sequence[str]] | None = None,
    ):
        params, size = model.params, model.encoder.image_size
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (3, size, size):
            raise ValueError(f"images are {images.dtype} {tuple(images.shape[1:])}, the encoder wants uint8 (3, {size}, {size})")
        if params.granularity == "sentence":
            mask_phrases = [[caption] for caption in captions]
        elif params.granularity == "noun" and mask_phrases is None and model.masking == "phrase":
            raise ValueError("granularity noun needs the nouns as mask_phrases")
        guides = phrases if mask_phrases is None else mask_phrases
        if not len(images) == len(captions) == len(phrases) == len(guides):
            raise ValueError(f"{len(images)} images, {len(captions)} captions, {len(phrases)} and {len(guides)} lists of phrases")
        self.model, self.images, self.text = model, images, params.text
        self._table: dict[str, int] = {}
        self.caption_rows = torch.tensor([self._row(caption) for caption in captions], dtype=torch.long)
        self.phrase_rows, self.phrase_starts = self._ragged(phrases, captions, "phrases")
        self.guide_rows, self.guide_starts = self._ragged(guides, captions, "masking phrases")
        self.token_ids = model.encoder.tokenize(list(self._table))  # [distinct texts, C]
        if params.fill == "relative":
            self._find_relatives()

    def __len__(self) -> int:
        return len(self.images)

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device | str,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One batch's loss and what to log. `model` is this task's, possibly wrapped; every draw is `generator`'s."""
        images = self._pixels(indices, generator, device)
        captions = self.caption_rows[indices]
        guides, offsets = self._slices(self.guide_rows, self.guide_starts, indices)
        relatives = self._draw_relatives(indices, generator)
        composed = self._composition_rows(indices, generator, relatives)
        ids = [self.token_ids[rows].to(device) for rows in (captions, composed, guides)]
        more = {}
        if relatives is not None:
            more = {"relatives": self._pixels(relatives, generator, device), "relative_labels": self.caption_rows[relatives].to(device)}
        terms = model(images, *ids, phrase_offsets=offsets, generator=generator, labels=captions.to(device), **more)
        return terms.pop("loss"), {name: value.detach() for name, value in terms.items()}

    def _pixels(self, rows: Tensor, generator: torch.Generator, device: torch.device | str) -> Tensor:
        """Normalised images [B, 3, H, W], augmented where the parameters say so."""
        images = self.images[rows]
        if self.model.params.augment:
            images = (255 * augment(images.float() / 255, generator)).round().to(torch.uint8)
        return self.model.encoder.normalise(images.to(device))

    def _composition_rows(self, indices: Tensor, generator: torch.Generator, relatives: Tensor | None = None) -> Tensor:
        """The row of each sample's composition text: its caption, or one of its phrases (the one that tells it from its relative)."""
        captions = self.caption_rows[indices]
        if self.text == "caption":
            return captions
        drawn = torch.rand(2, len(indices), generator=generator)
        if relatives is None:
            starts, counts = self.phrase_starts[indices], self.phrase_starts[indices + 1] - self.phrase_starts[indices]
            phrases = self.phrase_rows[starts + torch.minimum((drawn[0] * counts).long(), counts - 1)]
        else:
            rows, offsets = self._slices(self.phrase_rows, self.phrase_starts, indices)
            phrases = rows[telling_phrases(self._texts[rows], offsets, self._looks[indices], self._looks[relatives])]
        return phrases if self.text == "phrase" else torch.where(drawn[1] < 0.5, captions, phrases)

    def _draw_relatives(self, indices: Tensor, generator: torch.Generator) -> Tensor | None:
        """The row of each sample's relative, [B]; None where the mask token fills."""
        if self.model.params.fill != "relative":
            return None
        choice = torch.randint(self._relatives.shape[1], (len(indices), 1), generator=generator)
        return self._relatives[indices].gather(1, choice)[:, 0]

    @torch.no_grad()
    def _find_relatives(self) -> None:
        """Every image's nearest relatives, and the features of images and texts, by the encoder before training."""
        encoder = self.model.encoder
        where = encoder.mean.device
        pictures = (encoder.encode_image(encoder.normalise(batch)).cpu() for batch in self.images.split(BATCH))
        self._looks = torch.cat(list(pictures))  # f_I [N, D]
        self._texts = torch.cat([encoder.encode_text(ids.to(where)).cpu() for ids in self.token_ids.split(BATCH)])
        self._relatives = nearest_relatives(self._looks, self.caption_rows, self.model.params.relatives)

    def _row(self, text: str) -> int:
        return self._table.setdefault(text, len(self._table))

    def _ragged(self, lists: Sequence[Sequence[str]], captions: Sequence[str], what: str) -> tuple[Tensor, Tensor]:
        """Rows of all phrases in order [P_total] and where each sample's begin [N + 1]."""
        empty = sum(not phrases for phrases in lists)
        if empty:
            logger.info("%d of %d captions have no %s: the whole caption stands in", empty, len(lists), what)
        filled = [list(phrases) or [caption] for phrases, caption in zip(lists, captions, strict=True)]
        rows = torch.tensor([self._row(text) for texts in filled for text in texts], dtype=torch.long)
        counts = torch.tensor([0] + [len(texts) for texts in filled])
        return rows, counts.cumsum(0)

    @staticmethod
    def _slices(rows: Tensor, starts: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The ragged lists of the given samples, joined, and their offsets [B + 1]."""
        counts = starts[indices + 1] - starts[indices]
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        index = torch.arange(int(offsets[-1])) - offsets[:-1].repeat_interleave(counts) + starts[indices].repeat_interleave(counts)
        return rows[index], offsets

"""Concepts of images and texts about them: what keeps SEARLE's words near words that the text tower knows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.config.peers import PLACEHOLDER
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.peers.losses import cosine_distance
from pipeline.peers.pseudo_word import prompt_tokens

AT_ONCE = 4096
"""Images that are compared with all concepts at once."""


class Concepts:
    """The nouns of captions, and the captions that each is in.

    Args:
        encoder: Reads the texts.
        captions: N captions.
        nouns: Those of each.
        features: Texts -> f_T, [M, D] on the CPU.
    """

    def __init__(
        self,
        encoder: ImageTextEncoder,
        captions: Sequence[str],
        nouns: Sequence[Sequence[str]],
        features: Callable[[list[str]], Tensor],
    ):
        about: dict[str, dict[str, str]] = {}
        for caption, found in zip(captions, nouns, strict=True):
            for noun in found:
                about.setdefault(noun, {})[caption] = with_place(caption, noun)
        self.encoder, self.names = encoder, list(about)
        self.features = features(self.names)  # [M, D]
        counts = torch.tensor([len(texts) for texts in about.values()])
        self.counts, self.starts = counts, counts.cumsum(0) - counts
        self.text_features = features([caption for texts in about.values() for caption in texts])
        self.token_ids, self.places = prompt_tokens(
            encoder, [masked for texts in about.values() for masked in texts.values()]
        )

    def nearest(self, images: Tensor, count: int) -> Tensor:
        """The concepts nearest to images [N, D], by row: [N, count]."""
        count = min(count, len(self.names))
        return torch.cat([(part @ self.features.T).topk(count).indices for part in images.split(AT_ONCE)])

    def loss(self, words: Tensor, nearest: Tensor, generator: torch.Generator) -> Tensor:
        """1 - cos(f_T(t), f_T(t with v* for its concept)) with a concept and a text drawn for each word.

        Args:
            words: v* of B images, [B, E].
            nearest: Their concepts by row, [B, K].
            generator: Draws them.

        Returns:
            A scalar.
        """
        draws = torch.rand(2, len(words), generator=generator)
        choice = (draws[0] * nearest.shape[1]).long().clamp(max=nearest.shape[1] - 1)
        concepts = nearest.gather(1, choice[:, None])[:, 0]
        counts = self.counts[concepts]
        rows = self.starts[concepts] + (draws[1] * counts).long().clamp(max=counts - 1)
        masked = self.encoder.encode_with_words(self.token_ids[rows], self.places[rows], words)
        return cosine_distance(masked, self.text_features[rows].to(masked.device))


def with_place(caption: str, noun: str) -> str:
    """A caption with * for the first time that it has a noun: "red car" and "car" -> "red *"."""
    clean = caption.replace(PLACEHOLDER, " ")
    found = re.sub(rf"(?<!\w){re.escape(noun)}(?!\w)", lambda _: f" {PLACEHOLDER} ", clean, count=1)
    return " ".join(found.split()) if PLACEHOLDER in found else PLACEHOLDER

"""Pseudo-words: a vector in the place of a token's embedding, which the text tower reads among other words.

Symbols: B texts, C context, D joint width, E width of the text tower's embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config import MapperParams
from pipeline.config.peers import PLACEHOLDER
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.peers.interface import Peer

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


def prompt_tokens(encoder: ImageTextEncoder, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Texts with * where a word goes, as tokens.

    Args:
        encoder: Its tokenizer has to keep a * between spaces as a token of its own.
        texts: B texts.

    Returns:
        Token ids and where the placeholders are, long and bool [B, C], on the encoder's device.

    Raises:
        ValueError: A text has no placeholder among its first C tokens.
    """
    alone, empty = encoder.tokenize([PLACEHOLDER, ""]).tolist()
    (placeholder,) = set(alone) - set(empty)
    token_ids = encoder.tokenize(texts).to(encoder.mean.device)
    places = token_ids == placeholder
    for text, found in zip(texts, places.any(-1).tolist(), strict=True):
        if not found:
            raise ValueError(f"{text!r}: no {PLACEHOLDER} by itself among its first {encoder.context} tokens")
    return token_ids, places


def encode_prompts(encoder: ImageTextEncoder, texts: Sequence[str], words: Tensor) -> Tensor:
    """Texts with * where a word goes, each with its own word.

    Args:
        encoder: The backbone.
        texts: B texts.
        words: [B, E].

    Returns:
        [B, D], L2-normalised.
    """
    token_ids, places = prompt_tokens(encoder, texts)
    return encoder.encode_with_words(token_ids, places, words)


class Mapper(nn.Module):
    """phi: a feature of the joint space -> a word, by a perceptron."""

    def __init__(self, dim: int, width: int, params: MapperParams):
        super().__init__()
        sizes = [dim, *[params.hidden] * (params.layers - 1), width]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))
        self.activation, self.dropout = ACTIVATIONS[params.activation], params.dropout

    def forward(self, features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Features [B, D] -> words [B, E].

        Args:
            features: L2-normalised, or noisy ones.
            generator: Draws what is dropped in training; None: nothing is dropped.
        """
        hidden = features
        for layer in self.layers[:-1]:
            hidden = self.activation(layer(hidden))
            if generator is not None:  # torch's own dropout would draw other numbers after a resume
                kept = torch.rand(hidden.shape, generator=generator) >= self.dropout
                hidden = hidden * kept.to(hidden.device) / (1.0 - self.dropout)
        return self.layers[-1](hidden)


class PseudoWordPeer(Peer):
    """v* = phi(f_I(reference)) among the words of the query: f_T("a photo of v* that ...").

    Args:
        encoder: The backbone, whose text tower reads the word.
        params: The mapper and the prompts.
    """

    def __init__(self, encoder: ImageTextEncoder, params: MapperParams):
        super().__init__(encoder)
        self.params = params
        width = encoder.word_embedding(torch.zeros(1, 1, dtype=torch.long, device=encoder.mean.device)).shape[-1]
        self.mapper = Mapper(encoder.dim, width, params)

    def compose(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """See `Peer.compose`."""
        prompts = [self.params.query.replace("{modification}", text.replace(PLACEHOLDER, " ")) for text in texts]
        return encode_prompts(self.encoder, prompts, self.mapper(images))

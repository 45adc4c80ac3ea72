"""Carrier words: words around the ones that matter.

People phrase a request in many ways ("give it ...", "the same but ..."), and a caption never does. A small
model has not learnt these phrasings from large-scale pretraining. It must learn to ignore words that it does
not know, so its training texts may be set among random English words.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.artifacts import ArtifactError

MAX_WORDS = 4
"""Bound on the words before a text, and on those after it."""


def english_words(text_encoder: str | Path) -> list[str]:
    """The whole words in the vocabulary of a word-piece text encoder.

    Args:
        text_encoder: The encoder's folder.

    Returns:
        Words of three ASCII letters or more, in the vocabulary's order.

    Raises:
        ArtifactError: The folder holds no such vocabulary.
    """
    path = Path(text_encoder) / "vocab.txt"
    if not path.is_file():
        raise ArtifactError(
            f"{path}: carrier words come from a word-piece vocabulary, and there is none "
            "(diffcomp.carriers: 0 needs none)"
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    return [word for word in lines if word.isascii() and word.isalpha() and len(word) > 2]


def carrier_words(captions: Iterable[str], text_encoder: str | Path) -> list[str]:
    """The `english_words` of a text encoder that no caption uses."""
    known = {word for caption in captions for word in caption.lower().split()}
    return [word for word in english_words(text_encoder) if word not in known]


def among_carrier_words(text: str, words: Sequence[str], random_state: random.Random) -> str:
    """A text with 0 to MAX_WORDS random words on either side.

    Args:
        text: The text.
        words: The carrier words to draw from.
        random_state: Draws them.

    Returns:
        The words, the text, and words again, with single spaces between them.
    """
    before, after = (random_state.choices(words, k=random_state.randint(0, MAX_WORDS)) for _ in range(2))
    return " ".join([*before, text, *after])

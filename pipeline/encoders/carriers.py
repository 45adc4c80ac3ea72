"""Carrier words: what stands around the words that matter.

People word a request in many ways ("give it ...", "the same but ..."), a caption never does. A model
that large pretraining has not shown how people word things must learn to pass over words that it does
not know, so a text for it may be set among random English words.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.artifacts import ArtifactError

LONGEST = 4
"""At most so many words before a text, and as many behind it."""


def english_words(text_encoder: str | Path) -> list[str]:
    """Whole words, of three letters or more, of a word-piece text encoder's vocabulary in its folder.

    Raises ArtifactError where the folder holds no such vocabulary.
    """
    path = Path(text_encoder) / "vocab.txt"
    if not path.is_file():
        raise ArtifactError(
            f"{path}: carrier words come from a word-piece vocabulary, and there is none (diffcomp.carriers: 0 needs none)"
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    return [word for word in lines if word.isascii() and word.isalpha() and len(word) > 2]


def carrier_words(captions: Iterable[str], text_encoder: str | Path) -> list[str]:
    """The `english_words` of a text encoder that no caption uses."""
    known = {word for caption in captions for word in caption.lower().split()}
    return [word for word in english_words(text_encoder) if word not in known]


def carried(text: str, words: Sequence[str], random_state: random.Random) -> str:
    """`text` with 0 to LONGEST random words on either side."""
    before, after = (random_state.choices(words, k=random_state.randint(0, LONGEST)) for _ in range(2))
    return " ".join([*before, text, *after])

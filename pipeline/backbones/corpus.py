"""What the small backbones are trained on: characters, each with its images and its texts.

A model that large pretraining has not shown how people word things must learn to pass over words it
does not know. So texts are roughened here: parts of captions stand among random English words
(`partial`), and the carrier words of edit instructions are replaced by such words (`_reworded`).
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.artifacts import ShardSet
from pipeline.text.carriers import among_carrier_words, carrier_words

EDITS_A_KIND = 8
PARTIAL = 8
CARRIER_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "to",
        "it",
        "into",
        "with",
        "this",
        "same",
        "but",
        "change",
        "make",
        "turn",
        "replace",
        "give",
        "use",
        "show",
        "now",
        "set",
        "add",
        "paint",
        "is",
        "one",
        "instead",
        "person",
        "someone",
        "clock",
        "hands",
        "sky",
        "phase",
        "direction",
        "facing",
        "rotate",
        "recolour",
        "point",
        "of",
        "at",
        "in",
        "colour",
        "time",
        "hair",
    ]
)


@dataclass
class Corpus:
    """One entry a character (a Unicode emoji); all lists run over the characters.

    images: uint8 [I, 3, H, W]; images[c]: the rows of `images` that draw character c by two teams
    (one row twice where only one team may be seen). partial[c]: PARTIAL texts that name c in part.
    edits[c]: (prompt's instruction, description after, shared concept), EDITS_A_KIND of every kind
    of edit that c can be the reference of, so that no kind outweighs another.
    """

    images: Tensor
    pictures: list[tuple[int, int]]
    short: list[str]
    long: list[str]
    partial: list[list[str]]
    edits: list[list[tuple[str, str, str]]]

    def texts(self) -> list[str]:
        """Everything a tokenizer should know."""
        return [*self.short, *self.long, *(text for edits in self.edits for edit in edits for text in edit)]


def decode_images(encoded: list[bytes]) -> Tensor:
    """PNG bytes of images of one size -> uint8 [N, 3, H, W]."""
    arrays = [np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in encoded]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def load_corpus(pairs: str | Path, triplets: str | Path, text_encoder: str | Path) -> Corpus:
    """Read the `prepare` stage's training tables (no benchmark image is in them). text_encoder: whose vocabulary holds carrier words."""
    table = ShardSet.open(Path(pairs) / "images").table().to_pydict()
    rows = {image_id: row for row, image_id in enumerate(table["image_id"])}
    captions: dict[str, dict[str, str]] = {}
    pictures: dict[str, list[int]] = {}
    for pair in ShardSet.open(Path(pairs) / "pairs").table().to_pylist():
        character = pair["image_id"].split("/")[-1]
        captions.setdefault(character, {})[pair["caption_kind"]] = pair["caption"]
        where = pictures.setdefault(character, [])
        if rows[pair["image_id"]] not in where:
            where.append(rows[pair["image_id"]])
    characters = sorted(pictures)
    fillers = carrier_words((captions[character]["short"] for character in characters), text_encoder)
    edits = _edits(triplets, fillers)
    short = [captions[c]["short"] for c in characters]
    return Corpus(
        images=decode_images(table["bytes"]),
        pictures=[(pictures[c][0], pictures[c][-1]) for c in characters],
        short=short,
        long=[captions[c]["long"] for c in characters],
        partial=[_partial(text, number, fillers) for number, text in enumerate(short)],
        edits=[edits.get(c, []) for c in characters],
    )


def _partial(caption: str, number: int, fillers: list[str]) -> list[str]:
    """PARTIAL texts: some words of the caption, in order, among random other words."""
    random_state = random.Random(f"partial/{number}/{caption}")
    words, texts = caption.split(), []
    for _ in range(PARTIAL):
        begin = random_state.randrange(len(words))
        end = random_state.randint(begin + 1, len(words))
        texts.append(among_carrier_words(" ".join(words[begin:end]), fillers, random_state))
    return texts


def _edits(triplets: str | Path, fillers: list[str]) -> dict[str, list[tuple[str, str, str]]]:
    """EDITS_A_KIND edits of every kind by reference character, three in four of them reworded."""
    by_kind: dict[str, dict[str, set[tuple[str, str, str]]]] = {}
    for row in ShardSet.open(triplets).table().to_pylist():
        kinds = by_kind.setdefault(row["reference_id"].split("/")[-1], {})
        edit = (row["instruction"], row["target_description"], row["shared_concept"])
        kinds.setdefault(row["triplet_id"].split("/")[0], set()).add(edit)
    chosen = {}
    for character, kinds in by_kind.items():
        random_state = random.Random(f"edits/{character}")
        chosen[character] = [
            (instruction if number % 4 == 0 else _reworded(instruction, fillers, random_state), after, concept)
            for _, edits in sorted(kinds.items())
            for number, (instruction, after, concept) in enumerate(random_state.choices(sorted(edits), k=EDITS_A_KIND))
        ]
    return chosen


def _reworded(instruction: str, fillers: list[str], random_state: random.Random) -> str:
    """Carrier words go or are replaced, others come in around; the words that name the change stay."""
    words = []
    for word in instruction.split():
        draw = random_state.random() if word in CARRIER_WORDS else 1.0
        if draw >= 0.6:
            words.append(word)
        elif draw < 0.4:
            words.append(random_state.choice(fillers))
    return among_carrier_words(" ".join(words), fillers, random_state)

"""What the small backbones are trained on: characters, each with its pictures and its texts."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.artifacts import ShardSet


@dataclass
class Corpus:
    """One entry a character (a Unicode emoji); all lists run over the characters.

    images: uint8 [I, 3, H, W]; pictures[c]: rows of `images` that draw character c, one a team.
    edits[c]: (instruction, description after, shared concept) of edits whose reference is c.
    """

    images: Tensor
    pictures: list[list[int]]
    short: list[str]
    long: list[str]
    edits: list[list[tuple[str, str, str]]]
    filler: list[str] = field(default_factory=list)

    def partial(self, character: int, count: int) -> list[str]:
        """`count` partial texts of a character: some words of its short caption among random other words.

        A modification names a part of what the target shows, in a wording that training never saw;
        texts like these teach an encoder to read the part and to pass over the rest.
        """
        random_state = random.Random(f"partial/{character}/{self.short[character]}")
        words, others = self.short[character].split(), self._words()
        texts = []
        for _ in range(count):
            begin = random_state.randrange(len(words))
            end = random_state.randint(begin + 1, len(words))
            before, after = (random_state.choices(others, k=random_state.randint(0, 4)) for _ in range(2))
            texts.append(" ".join([*before, *words[begin:end], *after]))
        return texts

    def _words(self) -> list[str]:
        if not self.filler:
            self.filler = sorted({word for edits in self.edits for instruction, _, _ in edits for word in instruction.split()})
        return self.filler or ["the"]

    def texts(self) -> list[str]:
        """Everything a tokenizer should know."""
        return [*self.short, *self.long, *(text for edits in self.edits for pair in edits for text in pair)]


def decode_images(encoded: list[bytes]) -> Tensor:
    """PNG bytes of images of one size -> uint8 [N, 3, H, W]."""
    arrays = [np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in encoded]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def load_corpus(pairs: str | Path, triplets: str | Path) -> Corpus:
    """Read the `prepare` stage's training tables (no benchmark image is in them)."""
    pictures_table = ShardSet.open(Path(pairs) / "images").table().to_pydict()
    rows = {image_id: row for row, image_id in enumerate(pictures_table["image_id"])}
    captions: dict[str, dict[str, str]] = {}
    pictures: dict[str, list[int]] = {}
    for row in ShardSet.open(Path(pairs) / "pairs").table().to_pylist():
        character = row["image_id"].split("/")[-1]
        captions.setdefault(character, {})[row["caption_kind"]] = row["caption"]
        where = pictures.setdefault(character, [])
        if rows[row["image_id"]] not in where:
            where.append(rows[row["image_id"]])
    edits: dict[str, set[tuple[str, str, str]]] = {}
    for row in ShardSet.open(triplets).table().to_pylist():
        edits.setdefault(row["reference_id"].split("/")[-1], set()).add(
            (row["instruction"], row["target_description"], row["shared_concept"])
        )
    characters = sorted(pictures)
    return Corpus(
        images=decode_images(pictures_table["bytes"]),
        pictures=[pictures[c] for c in characters],
        short=[captions[c]["short"] for c in characters],
        long=[captions[c]["long"] for c in characters],
        edits=[sorted(edits.get(c, ())) for c in characters],
    )

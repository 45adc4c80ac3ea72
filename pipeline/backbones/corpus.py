"""What the small backbones are trained on: characters, each with its images and its texts.

A small model has not learnt from large-scale pretraining how people phrase requests. It must learn to
ignore words that it does not know. So texts are perturbed here: parts of captions stand among random
English words (`partial`), and the carrier words of edit instructions are replaced by such words (`reworded`).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.artifacts import ShardSet
from pipeline.artifacts.decoding import decode
from pipeline.text.carriers import among_carrier_words, carrier_words

EDITS_A_KIND = 8
"""Edits of each kind for a character."""
PARTIAL = 8
"""Partial texts for a character."""
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
"""Words of edit instructions that do not say what changes."""


class Edit(NamedTuple):
    """An edit of a reference: what is asked for, and what the target then shows."""

    instruction: str
    target_description: str
    shared_concept: str


@dataclass
class Corpus:
    """Images, and one entry a character (a Unicode emoji) in every list."""

    codes: list[str]
    """The characters' code points, sorted."""
    images: Tensor
    """uint8 [I, 3, H, W]."""
    drawings: list[tuple[int, ...]]
    """The rows of `images` that show the character, one a team that drew it: at least one."""
    short: list[str]
    long: list[str]
    partial: list[list[str]]
    """PARTIAL texts that name the character in part."""
    edits: list[list[Edit]]
    """EDITS_A_KIND of every kind of edit that the character can be the reference of, so that no kind dominates."""

    def texts(self) -> list[str]:
        """Everything a tokenizer should know."""
        return [*self.short, *self.long, *(text for edits in self.edits for edit in edits for text in edit)]


def texts_by_kind(corpus: Corpus) -> list[str]:
    """All characters' short texts, then their long ones, then PARTIAL times their partial ones; see `draw_kinds`."""
    return [
        *corpus.short,
        *corpus.long,
        *(variants[number] for number in range(PARTIAL) for variants in corpus.partial),
    ]


def draw_kinds(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw which text of a character is seen.

    Args:
        shape: Of the result.
        generator: Draws, on the result's device.

    Returns:
        0: short (45%), 1: long (30%), 2 and more: one of the partial ones (25%).
    """
    draw = torch.rand(shape, generator=generator, device=generator.device)
    partial = 2 + torch.randint(PARTIAL, shape, generator=generator, device=generator.device)
    return torch.where(draw < 0.45, 0, torch.where(draw < 0.75, 1, partial))


class Drawings:
    """Draws two images of a character, by two teams where two drew it.

    Args:
        drawings: `Corpus.drawings`, of C characters.
        device: Where the rows are wanted.
    """

    def __init__(self, drawings: Sequence[tuple[int, ...]], device: torch.device):
        most = max(map(len, drawings))
        padded = [[*rows, *rows[:1] * (most - len(rows))] for rows in drawings]
        self.rows = torch.tensor(padded, device=device)  # [C, most]
        self.counts = torch.tensor([len(rows) for rows in drawings], device=device)  # [C]

    def draw(self, characters: Tensor, generator: torch.Generator) -> Tensor:
        """Draw for characters [B], on the generator's device -> rows of `Corpus.images` [B, 2]."""
        counts = self.counts[characters]  # [B]
        first, step = torch.rand((2, len(characters)), generator=generator, device=generator.device)
        first = (first * counts).long()
        other = (first + 1 + (step * (counts - 1)).long()) % counts  # never the first one, unless it is the only one
        return self.rows[characters].gather(1, torch.stack((first, other), 1))


def decode_images(encoded: list[bytes]) -> Tensor:
    """PNG bytes of images of one size -> uint8 [N, 3, H, W]."""
    arrays = [np.asarray(decode(one)) for one in encoded]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def load_corpus(
    pairs: str | Path,
    triplets: str | Path,
    text_encoder: str | Path,
    teams: Collection[str],
    artists: Mapping[str, Mapping[str, bytes]],
) -> Corpus:
    """Read the training tables of the stage `prepare`, and further artists' images. No benchmark image is in them.

    Args:
        pairs: The folder with the tables `images` and `pairs`.
        triplets: The table of triplets.
        text_encoder: The folder of the encoder whose vocabulary gives the carrier words.
        teams: The teams of the tables whose images are seen.
        artists: Artist -> PNGs by character. Characters without a caption are left out.
    """
    images = dict(_images(Path(pairs) / "images", teams))
    images |= {f"{name}/{code}": png for name, files in artists.items() for code, png in files.items()}
    captions: dict[str, dict[str, str]] = {}
    for pair in ShardSet.open(Path(pairs) / "pairs").table().to_pylist():
        captions.setdefault(pair["image_id"].split("/")[-1], {})[pair["caption_kind"]] = pair["caption"]
    drawings: dict[str, list[int]] = {}
    for row, image_id in enumerate(images):
        if (character := image_id.split("/")[-1]) in captions:
            drawings.setdefault(character, []).append(row)
    characters = sorted(drawings)
    fillers = carrier_words((captions[character]["short"] for character in characters), text_encoder)
    edits = _edits(triplets, fillers)
    short = [captions[c]["short"] for c in characters]
    return Corpus(
        codes=characters,
        images=decode_images(list(images.values())),
        drawings=[tuple(drawings[c]) for c in characters],
        short=short,
        long=[captions[c]["long"] for c in characters],
        partial=[_partial(text, number, fillers) for number, text in enumerate(short)],
        edits=[edits.get(c, []) for c in characters],
    )


def _images(folder: Path, teams: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Ids and PNGs of a table of images, those of some teams."""
    table = ShardSet.open(folder).table().to_pydict()
    for image_id, png in zip(table["image_id"], table["bytes"], strict=True):
        if image_id.split("/")[0] in teams:
            yield image_id, png


def _partial(caption: str, number: int, fillers: list[str]) -> list[str]:
    """PARTIAL texts: some words of the caption, in order, among random other words."""
    random_state = random.Random(f"partial/{number}/{caption}")
    words, texts = caption.split(), []
    for _ in range(PARTIAL):
        begin = random_state.randrange(len(words))
        end = random_state.randint(begin + 1, len(words))
        texts.append(among_carrier_words(" ".join(words[begin:end]), fillers, random_state))
    return texts


def _edits(triplets: str | Path, fillers: list[str]) -> dict[str, list[Edit]]:
    """EDITS_A_KIND edits of every kind by reference character, three in four of them reworded."""
    by_kind: dict[str, dict[str, set[Edit]]] = {}
    for row in ShardSet.open(triplets).table().to_pylist():
        kinds = by_kind.setdefault(row["reference_id"].split("/")[-1], {})
        edit = Edit(row["instruction"], row["target_description"], row["shared_concept"])
        kinds.setdefault(row["triplet_id"].split("/")[0], set()).add(edit)
    chosen = {}
    for character, kinds in by_kind.items():
        random_state = random.Random(f"edits/{character}")
        chosen[character] = [
            edit if number % 4 == 0 else edit._replace(instruction=reworded(edit.instruction, fillers, random_state))
            for _, edits in sorted(kinds.items())
            for number, edit in enumerate(random_state.choices(sorted(edits), k=EDITS_A_KIND))
        ]
    return chosen


def reworded(instruction: str, fillers: list[str], random_state: random.Random) -> str:
    """Replace or drop carrier words, and set others around; the words that name the change stay."""
    words = []
    for word in instruction.split():
        draw = random_state.random() if word in CARRIER_WORDS else 1.0
        if draw >= 0.6:
            words.append(word)
        elif draw < 0.4:
            words.append(random_state.choice(fillers))
    return among_carrier_words(" ".join(words), fillers, random_state)

"""The corpus of the small backbones: characters with their drawings, texts and edits."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from pipeline.artifacts import schemas, write_table
from pipeline.backbones.corpus import (
    CARRIER_WORDS,
    EDITS_A_KIND,
    PARTIAL,
    Drawings,
    draw_kinds,
    load_corpus,
    texts_by_kind,
)

CHARACTERS = ("apple", "ball")
FILLERS = ["table", "river", "window", "garden"]


def image_row(number: int, image_id: str) -> dict[str, object]:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(buffer, "PNG")
    return {"image_id": image_id, "bytes": buffer.getvalue(), "width": 8, "height": 8}


def pair_row(image_id: str, kind: str, caption: str) -> dict[str, object]:
    return {
        "pair_id": f"{image_id}/{kind}",
        "image_id": image_id,
        "caption": caption,
        "caption_kind": kind,
        "phrases": [],
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two teams draw the apple, one draws the ball; the apple is the reference of two edits of one kind."""
    folder = tmp_path_factory.mktemp("corpus")
    ids = ["one/ball", "one/apple", "two/apple"]
    write_table(
        folder / "images", pa.Table.from_pylist([image_row(n, one) for n, one in enumerate(ids)], schemas.IMAGES), {}
    )
    pairs = [pair_row(one, kind, f"a {kind} {one.split('/')[1]} caption") for one in ids for kind in ("long", "short")]
    write_table(folder / "pairs", pa.Table.from_pylist(pairs, schemas.PAIRS), {})
    triplets = [
        {
            "triplet_id": f"colour/{number}",
            "reference_id": "one/apple",
            "target_id": "one/ball",
            "instruction": f"make it {colour}",
            "target_description": f"a {colour} apple",
            "shared_concept": "apple",
        }
        for number, colour in enumerate(("purple", "silver"))
    ]
    write_table(folder / "triplets", pa.Table.from_pylist(triplets, schemas.TRIPLETS), {})
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "##s", *FILLERS, "apple"]))
    return load_corpus(
        folder, folder / "triplets", folder, ["one", "two"], {"three": {"apple": image_row(9, "")["bytes"]}}
    )


def test_every_character_has_one_drawing_of_each_team_that_drew_it(corpus):
    assert corpus.images.shape == (4, 3, 8, 8) and corpus.images[:, 0, 0, 0].tolist() == [0, 1, 2, 9]
    assert corpus.drawings == [(1, 2, 3), (0,)]


def test_two_images_of_a_character_are_by_two_teams_where_two_drew_it(corpus):
    drawn = Drawings(corpus.drawings, torch.device("cpu")).draw(
        torch.tensor([0, 1]).repeat(600), torch.Generator().manual_seed(0)
    )
    apple, ball = drawn[::2], drawn[1::2]
    assert (ball == 0).all() and (apple[:, 0] != apple[:, 1]).all()
    counts = {pair: 0 for pair in itertools.permutations((1, 2, 3), 2)}
    for pair in apple.tolist():
        counts[tuple(pair)] += 1
    assert min(counts.values()) > 60  # each of the six is expected a hundred times
    assert corpus.short == ["a short apple caption", "a short ball caption"]


def test_partial_texts_are_words_of_the_caption_among_others(corpus):
    for caption, partial in zip(corpus.short, corpus.partial, strict=True):
        assert len(partial) == PARTIAL
        for text in partial:
            kept = " ".join(word for word in text.split() if word not in FILLERS)
            assert kept and kept in caption


def test_edits_of_a_kind_are_as_many_as_wanted_and_keep_the_words_that_name_the_change(corpus):
    apple, ball = corpus.edits
    assert len(apple) == EDITS_A_KIND and not ball
    for edit in apple:
        colour = edit.target_description.split()[1]
        assert colour in edit.instruction.split() and edit.shared_concept == "apple"
        assert set(edit.instruction.split()) <= {colour, *FILLERS, *CARRIER_WORDS}


def test_texts_stand_by_kind_as_the_draws_number_them(corpus):
    texts, characters = texts_by_kind(corpus), len(CHARACTERS)
    assert len(texts) == characters * (2 + PARTIAL)
    assert texts[characters] == corpus.long[0] and texts[characters * 3 + 1] == corpus.partial[1][1]


def test_kinds_are_drawn_in_their_shares():
    kinds = draw_kinds((20_000,), torch.Generator().manual_seed(0)).numpy()
    shares = np.bincount(kinds, minlength=2 + PARTIAL) / len(kinds)
    np.testing.assert_allclose(shares, [0.45, 0.3, *[0.25 / PARTIAL] * PARTIAL], atol=0.015)

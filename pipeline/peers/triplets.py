"""What the generative peers share: edit triplets in the backbone's space, and a network conditioned by a query."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from pipeline.artifacts import ShardSet
from pipeline.config.peers import GenerativeParams
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.fusion_diff import Prior, PriorSizes
from pipeline.peers.corpus import Corpus
from pipeline.peers.interface import Peer

TRIPLETS = Path("data/triplets")
CACHE = Path("models/.made/peers_triplets")
"""The features of their images. They are a cache, and no output of the stage."""


class Triplets(NamedTuple):
    """N edits in the backbone's space, each float32 [N, D], L2-normalised, on the CPU."""

    references: Tensor
    texts: Tensor
    targets: Tensor


def read_triplets(corpus: Corpus, folder: Path) -> Triplets:
    """The features of a table of edit triplets.

    Args:
        corpus: Holds the images, and the backbone.
        folder: The table.

    Raises:
        ValueError: There is no triplet.
    """
    rows = ShardSet.open(folder).table().select(["reference_id", "target_id", "instruction"]).to_pydict()
    references, targets = rows["reference_id"], rows["target_id"]
    if not references:
        raise ValueError(f"{folder}: no edit triplets, which this peer is trained on")
    ids = list(dict.fromkeys([*references, *targets]))
    vectors = corpus.vectors(ids, CACHE / folder.name)
    places = {image_id: place for place, image_id in enumerate(ids)}
    return Triplets(
        vectors[[places[image_id] for image_id in references]],
        corpus.text_features(rows["instruction"]),
        vectors[[places[image_id] for image_id in targets]],
    )


class GenerativePeer(Peer):
    """A peer that moves a vector to the target's with the blocks of Fusion-Diff's prior.

    They attend to two tokens: the modification's feature and the reference's.

    Args:
        encoder: The backbone.
        params: The network's sizes.
    """

    def __init__(self, encoder: ImageTextEncoder, params: GenerativeParams):
        super().__init__(encoder)
        self.dim = encoder.dim
        sizes = PriorSizes(
            dim=encoder.dim,
            channels=params.width,
            grid=1,
            patch_size=1,
            width=params.width,
            heads=params.heads,
            depth=params.depth,
            ffn_ratio=params.ffn_ratio,
            time_frequencies=params.time_frequencies,
            text_dim=encoder.dim,
            text_tokens=1,
        )
        self.network = Prior(sizes)
        self.network.null_text.requires_grad_(False)  # a condition that is left out has a token of its own
        self.kinds = nn.Parameter(torch.randn(2, encoder.dim))
        """Added to text and reference, so that they are told apart."""
        self.nothing = nn.Parameter(torch.randn(2, encoder.dim))
        """In the place of a text and of a reference that are left out."""

    def conditions(
        self, texts: Tensor, references: Tensor, no_text: Tensor | None = None, no_reference: Tensor | None = None
    ) -> Tensor:
        """The tokens that the network attends to.

        Args:
            texts: f_T [B, D].
            references: f_I [B, D].
            no_text: [B] bool, True where the text is left out; None: nowhere.
            no_reference: [B] bool, the same of the reference.

        Returns:
            [B, 2, D], of about unit deviation in each dimension.
        """
        tokens = []
        for row, (vectors, left_out) in enumerate(((texts, no_text), (references, no_reference))):
            scaled = vectors * self.dim**0.5
            if left_out is not None:
                scaled = torch.where(left_out[:, None], self.nothing[row], scaled)
            tokens.append(scaled + self.kinds[row])
        return torch.stack(tokens, dim=1)


P = TypeVar("P", bound=GenerativePeer)


class TripletTask(Generic[P]):
    """Edit triplets to train a generative peer on. A peer adds its loss.

    Args:
        model: What is trained.
        triplets: N edits.
    """

    def __init__(self, model: P, triplets: Triplets):
        self.model, self.triplets = model, triplets

    def __len__(self) -> int:
        return len(self.triplets.targets)

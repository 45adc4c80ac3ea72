"""PLI (Chen and Lai, ICME 2025): training looks like a query, a part of an image and a text that completes it.

A random share of the patches is hidden. What is left, composed with the caption, is to find the whole image:

    L = InfoNCE(slerp(f_I(x * m), f_T(c); alpha), f_I(x))
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import PeersParams
from pipeline.config.peers import PliParams
from pipeline.diffcomp import slerp
from pipeline.diffcomp.losses import info_nce, inverse_temperature
from pipeline.diffcomp.masking import random_mask
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.peers.corpus import Corpus
from pipeline.peers.interface import Peer
from pipeline.peers.tuned import CaptionBatch, TunedPeer, captioned_images
from pipeline.training import Run
from pipeline.training import train as run_training


class Pli(TunedPeer):
    """Both towers, tuned on masked images."""

    params: PliParams

    def __init__(self, encoder: ImageTextEncoder, params: PeersParams):
        super().__init__(encoder, params.pli, params.pli.text_layers)

    def encode_masked(self, images: Tensor, mask: Tensor) -> Tensor:
        """f_I of images of which some patches are hidden: only their positions are left.

        Args:
            images: Normalised pixels [B, 3, H, W].
            mask: [B, N]; one where a patch is hidden.

        Returns:
            [B, D], L2-normalised.
        """
        encoder = self.tuned
        patches = encoder.patchify(images) * (1 - mask)[..., None].to(images)
        return encoder.project(encoder.run(encoder.assemble(patches), 0, encoder.depth)[:, 0])

    def loss(self, images: Tensor, captions: CaptionBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `TunedPeer.loss`. Images with one caption are no negatives of each other."""
        height, width = self.tuned.patch_grid
        mask = random_mask(len(images), height * width, self.params.masked, generator).to(images.device)
        masked, texts = self.encode_masked(images, mask), self.encode_texts(captions.texts)
        composed = slerp(masked, texts, self.params.masked_text_weight)
        scale = inverse_temperature(self.tuned.logit_scale)
        return {"loss": info_nce(composed, self.tuned.encode_image(images), scale, captions.labels)}


def new(encoder: ImageTextEncoder, params: PeersParams) -> Pli:
    """See `Trained.new`."""
    return Pli(encoder, params)


def train(peer: Peer, corpus: Corpus, run: Run) -> list[dict[str, float]]:
    """See `Trained.train`."""
    assert isinstance(peer, Pli)
    return run_training(captioned_images(peer, corpus), peer.params, run)

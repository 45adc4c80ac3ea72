"""SlerpTAT (Jang et al., ECCV 2024): a query is a point on the arc between its image and its text.

Such a point is near images only where the two towers' features lie near each other. So the image tower is tuned
towards the texts, which stay where they are (text-anchored tuning):

    L = (InfoNCE(f_I, f_T) + InfoNCE(f_T, f_I)) / 2,    query = slerp(f_I, f_T; alpha)
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import PeersParams
from pipeline.diffcomp.losses import info_nce, inverse_temperature
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.peers.corpus import Corpus
from pipeline.peers.interface import Peer
from pipeline.peers.tuned import CaptionBatch, TunedPeer, captioned_images
from pipeline.training import Run
from pipeline.training import train as run_training


class SlerpTat(TunedPeer):
    """The tuned image tower beside the untouched text tower."""

    def __init__(self, encoder: ImageTextEncoder, params: PeersParams):
        super().__init__(encoder, params.slerp_tat, text_layers=0)

    def loss(self, images: Tensor, captions: CaptionBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `TunedPeer.loss`. Images with one caption are no negatives of each other."""
        found, scale = self.tuned.encode_image(images), inverse_temperature(self.tuned.logit_scale)
        to_texts = info_nce(found, captions.features, scale, captions.labels)
        to_images = info_nce(captions.features, found, scale, captions.labels)
        with torch.no_grad():
            aligned = (found * captions.features).sum(-1).mean()
        return {"loss": (to_texts + to_images) / 2, "cos_aligned": aligned}


def new(encoder: ImageTextEncoder, params: PeersParams) -> SlerpTat:
    """See `Trained.new`."""
    return SlerpTat(encoder, params)


def train(peer: Peer, corpus: Corpus, run: Run) -> list[dict[str, float]]:
    """See `Trained.train`."""
    assert isinstance(peer, SlerpTat)
    return run_training(captioned_images(peer, corpus), peer.params, run)

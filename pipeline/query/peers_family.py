"""The peers answer queries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from torch import Tensor

from pipeline.encoders.batching import encode_in_batches
from pipeline.encoders.image_source import ImageSource
from pipeline.peers import Peer
from pipeline.query.clock import Clock
from pipeline.query.interface import NO_CONTROLS, Controls, Descriptions, Family, Method, QueryVectors
from pipeline.query.models import Models
from pipeline.query.peers import methods
from pipeline.query.spaces import BackboneSpace, ModelSpace, PeerSpace
from pipeline.query.turning import turned
from pipeline.retrieval.queries import Query
from pipeline.retrieval.spaces import CLIP


def spaces(models: Models) -> dict[str, ModelSpace]:
    """The backbone's space, and that of every peer which tunes the backbone."""
    told = methods(models.params)
    return {
        method.space: BackboneSpace(models) if method.space == CLIP else PeerSpace(method.name, models)
        for method in told
    }


def load(models: Models, only: Collection[str] | None = None) -> Peers:
    """Load the peers that will be asked for; None: all that are configured.

    Raises:
        ArtifactError: A peer is missing, or was trained over another backbone.
    """
    chosen = [method for method in methods(models.params) if only is None or method.name in only]
    return Peers(models, chosen, {method.name: models.peer(method.name) for method in chosen})


class Peers(Family):
    """The methods in `peers.train`."""

    def __init__(self, models: Models, chosen: Sequence[Method], peers: Mapping[str, Peer]):
        self.params, self.peers = models.params, peers
        self.methods = {method.name: method for method in chosen}
        self.spaces = spaces(models)

    def answer(
        self,
        queries: Sequence[Query],
        images: ImageSource,
        controls: Controls = NO_CONTROLS,
        methods: Collection[str] | None = None,
        descriptions: Descriptions | None = None,
    ) -> dict[str, QueryVectors]:
        """See `Family.answer`. Descriptions are not used.

        Raises:
            ControlError: There is a region.
        """
        found = {}
        for name in self.chosen(methods, controls):
            clock, peer = Clock(), self.peers[name]
            with clock.part("describe"):
                vectors = self._composed(name, peer, queries, images)
                if controls.negative:
                    vectors = turned(peer.encoder, vectors, queries, controls)
            found[name] = QueryVectors(self.methods[name].space, vectors, seconds=clock.seconds)
        return found

    def _composed(self, name: str, peer: Peer, queries: Sequence[Query], images: ImageSource) -> np.ndarray:
        """Query vectors, float32 [Q, D]."""

        def compose(batch: Sequence[Query]) -> Tensor:
            encoder = peer.encoder
            pixels = images.pixels([query.reference_id for query in batch], encoder.image_size, encoder.fit)
            return peer.compose(encoder.encode_image(encoder.normalise(pixels)), [query.text for query in batch])

        return encode_in_batches(compose, queries, self.params.retrieve.batch_size, name)

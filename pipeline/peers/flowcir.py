"""FlowCIR: a straight flow from the composed query to the target's feature, in one step.

It starts where a training-free composition ends, not from noise. With x_0 = slerp(f_I(r), f_T; alpha) and
x_1 = f_I(target):

    L = E_s || v(x_s, s, f_T, f_I(r)) - (x_1 - x_0) ||^2,   x_s = (1 - s) x_0 + s x_1,   s uniform in [0, 1]
    query = x_0 + v(x_0, 0, f_T, f_I(r)), for one step

Features are scaled by sqrt(D), so that a dimension's deviation is about one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config import PeersParams
from pipeline.diffcomp import slerp
from pipeline.encoders.dual.interface import ImageTextEncoder, unit
from pipeline.peers.corpus import Corpus
from pipeline.peers.interface import Peer
from pipeline.peers.triplets import TRIPLETS, GenerativePeer, TripletTask, read_triplets
from pipeline.training import Run
from pipeline.training import train as run_training

TIMES = 1000
"""s = 1 in the units of the network's timesteps."""


class FlowCir(GenerativePeer):
    """The velocity, and the point that it starts from."""

    def __init__(self, encoder: ImageTextEncoder, params: PeersParams):
        super().__init__(encoder, params.flowcir)
        self.params = params.flowcir

    def forward(self, point: Tensor, time: Tensor, conditions: Tensor) -> Tensor:
        """v [B, D] at x_s [B, D] and s [B] in [0, 1], under conditions [B, 2, D]."""
        return self.network(point, time * TIMES, conditions)

    def start(self, references: Tensor, texts: Tensor) -> Tensor:
        """x_0 of references and texts [B, D], scaled."""
        return slerp(references, texts, self.params.text_weight) * self.dim**0.5

    def compose(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """See `Peer.compose`: Euler's steps along the flow."""
        found, steps = self.encode_texts(texts), self.params.flow_steps
        conditions, point = self.conditions(found, images), self.start(images, found)
        for step in range(steps):
            time = torch.full((len(point),), step / steps, device=point.device)
            point = point + self(point, time, conditions) / steps
        return unit(point)


class FlowCirTask(TripletTask[FlowCir]):
    """See `TripletTask`."""

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device | str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Task.loss`."""
        references, texts, targets = (rows[indices].to(device) for rows in self.triplets)
        time = torch.rand(len(indices), generator=generator).to(device)
        start, end = self.model.start(references, texts), targets * self.model.dim**0.5
        point = torch.lerp(start, end, time[:, None])
        velocity = model(point, time, self.model.conditions(texts, references))
        return F.mse_loss(velocity, end - start), {}


def new(encoder: ImageTextEncoder, params: PeersParams) -> FlowCir:
    """See `Trained.new`."""
    return FlowCir(encoder, params)


def train(peer: Peer, corpus: Corpus, run: Run) -> list[dict[str, float]]:
    """See `Trained.train`."""
    assert isinstance(peer, FlowCir)
    triplets = read_triplets(corpus, TRIPLETS / peer.params.triplets)
    return run_training(FlowCirTask(peer, triplets), peer.params, run)

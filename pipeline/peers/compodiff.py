"""CompoDiff (Gu et al., TMLR 2024): a diffusion prior that denoises the target's CLIP feature.

Text and reference condition it, and each may be left out, so that two guidance scales steer the sampling:

    L = E || f_I(target) - G(z_n, n, f_T, f_I(reference)) ||^2
    z^ = G(0, 0) + w_I (G(0, r) - G(0, 0)) + w_T (G(t, r) - G(0, r)),   0: left out

Features are scaled by sqrt(D), as `Diffusion` says.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.config import PeersParams
from pipeline.encoders.dual.interface import ImageTextEncoder, unit
from pipeline.fusion_diff import Diffusion
from pipeline.fusion_diff.sampler import solve
from pipeline.peers.corpus import Corpus
from pipeline.peers.interface import Peer
from pipeline.peers.triplets import TRIPLETS, GenerativePeer, TripletTask, read_triplets
from pipeline.training import Run
from pipeline.training import train as run_training


class CompoDiff(GenerativePeer):
    """The denoiser and its diffusion."""

    def __init__(self, encoder: ImageTextEncoder, params: PeersParams):
        super().__init__(encoder, params.compodiff)
        self.params = params.compodiff
        self.diffusion = Diffusion(self.params.diffusion, encoder.dim)

    def forward(self, noisy: Tensor, step: Tensor, conditions: Tensor) -> Tensor:
        """The prediction [B, D] for z_n [B, D] at steps [B] under conditions [B, 2, D]."""
        return self.network(noisy, step, conditions)

    def compose(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """See `Peer.compose`: a sampled target. All queries start from one noise, whatever batch they are in."""
        found, params = self.encode_texts(texts), self.params
        every = torch.ones(len(images), dtype=torch.bool, device=images.device)
        branches = torch.cat(
            [
                self.conditions(found, images),
                self.conditions(found, images, no_text=every),
                self.conditions(found, images, every, every),
            ]
        )

        def denoise(noisy: Tensor, index: int, step: int) -> Tensor:
            steps = torch.full((3 * len(noisy),), step, device=noisy.device)
            both, reference, nothing = self(noisy.repeat(3, 1), steps, branches).chunk(3)
            return guided(both, reference, nothing, params.text_guidance, params.image_guidance)

        noise = params.temperature * torch.randn(1, self.dim, generator=torch.Generator().manual_seed(0))
        start = noise.expand(len(images), -1).to(images)
        return unit(solve(denoise, start, self.diffusion, params.solver_steps))


def guided(both: Tensor, reference: Tensor, nothing: Tensor, text_scale: float, image_scale: float) -> Tensor:
    """Guidance by text and reference.

    Args:
        both: The prediction under both conditions, [B, D].
        reference: That under the reference alone.
        nothing: That under none.
        text_scale: w_T.
        image_scale: w_I.

    Returns:
        [B, D]; `both` where the scales are one.
    """
    return nothing + image_scale * (reference - nothing) + text_scale * (both - reference)


class CompoDiffTask(TripletTask[CompoDiff]):
    """See `TripletTask`."""

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device | str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Task.loss`. Text, reference, or both are left out of a share `dropped` of the rows each."""
        references, texts, targets = (rows[indices].to(device) for rows in self.triplets)
        diffusion, dropped = self.model.diffusion, self.model.params.dropped
        step, noise = (drawn.to(device) for drawn in diffusion.draw(len(indices), generator))
        share = torch.rand(len(indices), generator=generator).to(device)
        no_text, no_reference = share < 2 * dropped, (share >= dropped) & (share < 3 * dropped)
        conditions = self.model.conditions(texts, references, no_text, no_reference)
        predicted = model(diffusion.noise(targets, step, noise), step, conditions)
        return diffusion.loss(predicted, diffusion.target(targets, step, noise)), {}


def new(encoder: ImageTextEncoder, params: PeersParams) -> CompoDiff:
    """See `Trained.new`."""
    return CompoDiff(encoder, params)


def train(peer: Peer, corpus: Corpus, run: Run) -> list[dict[str, float]]:
    """See `Trained.train`."""
    assert isinstance(peer, CompoDiff)
    triplets = read_triplets(corpus, TRIPLETS / peer.params.triplets)
    return run_training(CompoDiffTask(peer, triplets), peer.params, run)

"""Trained peers on disk. Each says over which backbone it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifacts import load_weights, save_weights
from pipeline.artifacts.weights import Origin
from pipeline.config import Params
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.peers.corpus import peers_backbone
from pipeline.peers.interface import Peer
from pipeline.peers.registry import PEERS


def save_peer(folder: str | Path, peer: Peer, config: dict[str, Any], log: str, origin: Origin | None = None) -> None:
    """Store a trained peer.

    Args:
        folder: Where to; it is replaced as a whole.
        peer: Its own weights are stored.
        config: `peers_backbone`, and what else is to be known of it.
        log: The training's log as CSV.
        origin: What it was made from; see `save_weights`.
    """
    save_weights(folder, peer.state_dict(), config, log, origin)


def load_peer(folder: str | Path, name: str, encoder: ImageTextEncoder, params: Params) -> Peer:
    """Load a trained peer.

    Args:
        folder: Where `save_peer` put it.
        name: Its name in `PEERS`.
        encoder: The backbone that `params` names.
        params: All parameters.

    Returns:
        The peer, in evaluation mode, on the CPU.

    Raises:
        ArtifactError: The files are damaged, or it was trained over another backbone or with other parameters.
    """
    peer = PEERS[name].new(encoder, params.peers)
    load_weights(folder, peer, peers_backbone(params))
    return peer.eval()

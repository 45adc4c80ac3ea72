"""train_peers: training pairs and the CLIP backbone -> models/peers/<method>, for every method in `peers.train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline.artifacts import sha256_file, write_json
from pipeline.artifacts.atomic import settle_only
from pipeline.artifacts.shards import MANIFEST
from pipeline.artifacts.weights import Origin
from pipeline.config import Params, as_dict, load_params
from pipeline.errors import run_stage
from pipeline.runtime import device, set_up

if TYPE_CHECKING:
    from pipeline.peers.corpus import Corpus

FOLDER = Path("models/peers")
TRAINED = "trained.json"
"""Names the peers beside it, so that the folder is there where none is trained."""


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    names = params.peers.train
    settle_only(FOLDER, [*names, TRAINED])
    if names:
        train_peers(params)
    write_json(FOLDER / TRAINED, {"trained": names})


def train_peers(params: Params) -> None:
    from pipeline.peers.corpus import Corpus  # here: the default trains none, and torch's models take seconds

    corpus = Corpus(params)
    for name in params.peers.train:
        train_peer(FOLDER / name, corpus)


def train_peer(folder: Path, corpus: Corpus) -> bool:
    """Train the peer of a folder's name. Returns False where it is there already."""
    from pipeline.peers.checkpoints import save_peer
    from pipeline.peers.corpus import peers_backbone
    from pipeline.peers.registry import PEERS
    from pipeline.training import Run
    from pipeline.training.loop import log_csv

    params, name = corpus.params, folder.name
    section = as_dict(PEERS[name].section(params.peers))
    identity = {name: section, "seed": params.seed, **corpus.identity}
    if table := PEERS[name].table(params.peers):
        identity["table"] = sha256_file(table / MANIFEST)
    code = ("artifacts", "diffcomp", "encoders", "fusion_diff", "peers", "runtime", "text", "training")
    origin = Origin(folder.parents[1] / ".made" / f"{folder.parent.name}_{name}.json", identity, code)
    if origin.made(folder):
        return False
    torch.manual_seed(params.seed)  # a peer does not depend on those before it
    peer = PEERS[name].new(corpus.encoder, params.peers).to(device(params.runtime))
    log = PEERS[name].train(peer, corpus, Run(params.seed, folder, identity, params.runtime.device, title=name))
    save_peer(folder, peer, {name: section, **peers_backbone(params)}, log_csv(log), origin)
    return True


if __name__ == "__main__":
    run_stage(main)

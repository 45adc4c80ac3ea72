"""The registry of peers that are trained. A new one is a line in `PEERS`."""

from __future__ import annotations

from pipeline.peers import lincir, pic2word, searle
from pipeline.peers.interface import Trained

PEERS: dict[str, Trained] = {
    "pic2word": Trained(pic2word.new, pic2word.train, lambda peers: peers.pic2word),
    "searle": Trained(searle.new, searle.train, lambda peers: peers.searle),
    "lincir": Trained(lincir.new, lincir.train, lambda peers: peers.lincir),
}
"""By name, as in `peers.train`."""

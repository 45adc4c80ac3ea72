"""The registry of peers that are trained. A new one is a line in `PEERS`."""

from __future__ import annotations

from pipeline.peers import compodiff, flowcir, lincir, pic2word, pli, searle, slerp_tat
from pipeline.peers.interface import Trained
from pipeline.peers.triplets import TRIPLETS

PEERS: dict[str, Trained] = {
    "pic2word": Trained(pic2word.new, pic2word.train, lambda peers: peers.pic2word),
    "searle": Trained(searle.new, searle.train, lambda peers: peers.searle),
    "lincir": Trained(lincir.new, lincir.train, lambda peers: peers.lincir),
    "slerp_tat": Trained(slerp_tat.new, slerp_tat.train, lambda peers: peers.slerp_tat),
    "pli": Trained(pli.new, pli.train, lambda peers: peers.pli),
    "compodiff": Trained(
        compodiff.new,
        compodiff.train,
        lambda peers: peers.compodiff,
        lambda peers: TRIPLETS / peers.compodiff.triplets,
    ),
    "flowcir": Trained(
        flowcir.new,
        flowcir.train,
        lambda peers: peers.flowcir,
        lambda peers: TRIPLETS / peers.flowcir.triplets,
    ),
}
"""By name, as in `peers.train`."""

"""The methods that the papers compare with, trained on the same pairs over the same backbone.

A method is one file with its model and its training, and one line in `pipeline.peers.registry`.
"""

from pipeline.peers.checkpoints import load_peer, save_peer
from pipeline.peers.interface import Peer, Trained
from pipeline.peers.registry import PEERS

__all__ = ["PEERS", "Peer", "Trained", "load_peer", "save_peer"]

"""Shard sets, manifests, atomic writes, weights: the only code that knows files."""

from pipeline.artifacts import schemas
from pipeline.artifacts.files import ArtifactError, read_json, sha256_file, write_atomically, write_json
from pipeline.artifacts.shards import Manifest, ShardSet, ShardWriter, write_table
from pipeline.artifacts.weights import load_weights, save_weights

__all__ = [
    "ArtifactError", "Manifest", "ShardSet", "ShardWriter", "load_weights", "read_json", "save_weights",
    "schemas", "sha256_file", "write_atomically", "write_json", "write_table",
]

"""Shard sets, manifests, atomic writes, weights: the only code that knows files."""

from typing import Any

from pipeline.artifacts import schemas
from pipeline.artifacts.atomic import ArtifactError, StorageError, read_json, sha256_file, write_atomically, write_json
from pipeline.artifacts.shards import Manifest, ShardSet, ShardWriter, TableShardWriter, finished_set, write_table

__all__ = [
    "ArtifactError",
    "Manifest",
    "ShardSet",
    "ShardWriter",
    "StorageError",
    "TableShardWriter",
    "finished_set",
    "load_weights",
    "read_json",
    "save_weights",
    "schemas",
    "sha256_file",
    "write_atomically",
    "write_json",
    "write_table",
]


def __getattr__(name: str) -> Any:
    """Weights on first use: they need torch, whose import takes seconds that a reader of tables should not pay."""
    if name in ("load_weights", "save_weights"):
        from pipeline.artifacts import weights

        return getattr(weights, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The tables that Fusion-Diff learns from: vectors, text conditions and their ids, in memory or mapped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.artifacts import ArtifactError, ShardSet
from pipeline.fusion_diff.conditions import TextConditions, Vectors
from pipeline.fusion_diff.mapped import map_conditions, map_vectors

IN_MEMORY = 256 * 2**20
"""Shard sets of more bytes than this are mapped for training: reading them takes several times as much memory."""


class Ids(Protocol):
    """The ids of a shard set, in order."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[str]: ...


class StoredIds:
    """The ids of a shard set, read from its shards whenever they are gone through."""

    def __init__(self, shards: ShardSet):
        self._shards = shards

    def __len__(self) -> int:
        return self._shards.rows

    def __iter__(self) -> Iterator[str]:
        for table in self._shards.shards(["id"]):
            yield from table["id"].to_pylist()


def open_vectors(folder: str | Path, in_memory: int = IN_MEMORY) -> tuple[Ids, Vectors, dict[str, Any]]:
    """As `read_vectors`, for training: a set of more than `in_memory` bytes is mapped, and its ids stay on disk."""
    shards = ShardSet.open(folder, verify=False)
    if _bytes(shards) <= in_memory:
        return read_vectors(folder)
    return StoredIds(shards), map_vectors(shards), shards.identity


def open_conditions(folder: str | Path, ids: Ids, in_memory: int = IN_MEMORY) -> tuple[TextConditions, dict[str, Any]]:
    """As `read_conditions`, for training: a set of more than `in_memory` bytes is mapped."""
    shards = ShardSet.open(folder, verify=False)
    if _bytes(shards) <= in_memory:
        return read_conditions(folder, ids)
    check_same_ids(folder, StoredIds(shards), ids)
    return map_conditions(shards), shards.identity


def _bytes(shards: ShardSet) -> int:
    return sum((shards.folder / shard.name).stat().st_size for shard in shards.manifest.shards)


def read_vectors(folder: str | Path) -> tuple[list[str], Tensor, dict[str, Any]]:
    """Read a shard set of `schemas.embeddings`.

    Args:
        folder: Of the shard set.

    Returns:
        Ids, vectors [N, d] float32, and the identity of what made them.

    Raises:
        ArtifactError: The set is damaged.
    """
    shards = ShardSet.open(folder)
    table = shards.table(["id", "vector"])
    dim = table.schema.field("vector").type.list_size
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in table["vector"].chunks]
    vectors = np.concatenate([np.empty(0, np.float32), *parts]).astype(np.float32).reshape(-1, dim)
    return table["id"].to_pylist(), torch.from_numpy(vectors), shards.identity


def read_conditions(folder: str | Path, ids: Ids) -> tuple[TextConditions, dict[str, Any]]:
    """Read a shard set of `schemas.conditions`.

    Args:
        folder: Of the shard set.
        ids: Those that its rows must have, in their order.

    Returns:
        The texts, and the identity of what made them.

    Raises:
        ArtifactError: The set is damaged, or a row belongs to another id.
    """
    shards = ShardSet.open(folder)
    table = shards.table()
    check_same_ids(folder, table["id"].to_pylist(), ids)
    return TextConditions.from_table(table), shards.identity


def check_same_ids(folder: str | Path, found: Ids, expected: Ids) -> None:
    """Raises ArtifactError naming the first row of `folder` whose id is not the expected one."""
    if len(found) != len(expected):
        raise ArtifactError(f"{folder}: {len(found)} rows, but {len(expected)} belong to them")
    for row, (one, other) in enumerate(zip(found, expected, strict=True)):
        if one != other:
            raise ArtifactError(f"{folder}: row {row} is {one!r}, but {other!r} belongs there")

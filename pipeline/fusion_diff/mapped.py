"""Vectors and text conditions in sets larger than memory, mapped from flat files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from pipeline.artifacts import ArtifactError, ShardSet
from pipeline.artifacts.mapped import Array, MappedFile, Plan, first_rows, map_arrays
from pipeline.fusion_diff.conditions import TextBatch, TextConditions, check_vectors


class MappedVectors:
    """Vectors [N, d] float32 of a mapped file; finite, since they were checked as they were laid out."""

    def __init__(self, vectors: MappedFile):
        self._file = vectors
        self.shape, self.ndim = vectors.tensor.shape, vectors.tensor.ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Tensor) -> Tensor:
        """The rows at indices [B], read into memory: [B, d]."""
        self._file.want(indices, torch.ones_like(indices))
        return self._file.tensor[indices]


class MappedConditions(TextConditions):
    """As `TextConditions`, of mapped files; they were checked as they were laid out."""

    def __init__(self, states: MappedFile, offsets: MappedFile, lengths: MappedFile):
        self._file = states
        self.states, self.offsets, self.lengths = states.tensor, offsets.tensor, lengths.tensor

    def batch(self, indices: Tensor, device: torch.device | str = "cpu", multiple: int = 1) -> TextBatch:
        """See `TextConditions.batch`."""
        self._file.want(self.offsets[indices], self.lengths[indices])
        return super().batch(indices, device, multiple)


def map_vectors(shards: ShardSet) -> MappedVectors:
    """The vectors of a shard set of `schemas.embeddings`, laid out first unless they are.

    Raises ArtifactError naming the shard that is damaged, or the row that is missing or not finite.
    """
    return MappedVectors(**map_arrays(shards, _vectors))


def map_conditions(shards: ShardSet) -> MappedConditions:
    """The texts of a shard set of `schemas.conditions`; see `map_vectors`."""
    return MappedConditions(**map_arrays(shards, _conditions))


def _vectors(shards: ShardSet) -> Plan:
    """vectors [N, d]"""
    dim = shards.open_shard(shards.manifest.shards[0]).schema_arrow.field("vector").type.list_size

    def part(table: pa.Table, places: dict[str, int]) -> dict[str, np.ndarray]:
        column, ids = table["vector"].combine_chunks(), table["id"].to_pylist()
        if column.null_count:
            row = column.is_null().index(True).as_py()
            raise ValueError(f"vectors: row {row} ({ids[row]}) is missing")
        vectors = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, dim)  # [B, d]
        check_vectors(torch.from_numpy(vectors), dim, "vectors", ids)
        return {"vectors": vectors}

    return Plan(
        {"vectors": Array("<f4", [shards.rows, dim])},
        {"vectors": first_rows(shard.rows for shard in shards.manifest.shards)},
        part,
    )


def _conditions(shards: ShardSet) -> Plan:
    """states [S, dim], lengths [N] and offsets [N + 1], see `TextConditions`."""
    rows = first_rows(shard.rows for shard in shards.manifest.shards)
    tokens = first_rows(pc.sum(table["tokens"]).as_py() or 0 for table in shards.shards(["tokens"]))
    schema = shards.open_shard(shards.manifest.shards[0]).schema_arrow
    dim, dtype = int((schema.metadata or {}).get(b"dim", 0)), schema.field("states").type.value_type.to_pandas_dtype()
    if not dim:
        raise ArtifactError(f"{shards.folder}: does not say of what dimension its states are")

    def part(table: pa.Table, places: dict[str, int]) -> dict[str, np.ndarray]:
        texts = TextConditions.from_table(table, dim)
        offsets = texts.offsets[1:] + places["states"]  # the first of all, 0, is there
        return {"states": texts.states.numpy(), "lengths": texts.lengths.numpy(), "offsets": offsets.numpy()}

    arrays = {
        "states": Array(np.dtype(dtype).str, [tokens[-1], dim]),
        "lengths": Array("<i8", [shards.rows]),
        "offsets": Array("<i8", [shards.rows + 1]),
    }
    return Plan(arrays, {"states": tokens, "lengths": rows, "offsets": [row + 1 for row in rows]}, part)

"""Reading a gallery's vectors from its shards: checked, one shard in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline.artifacts import ArtifactError, ShardSet

UNIT_TOLERANCE = 1e-3
"""What rounding a unit vector to float16 may cost its norm, doubled."""


def vectors(gallery: ShardSet) -> Iterator[tuple[list[str], np.ndarray]]:
    """The vectors of one shard after the other.

    Yields:
        Ids and float32 unit vectors [rows, d].

    Raises:
        ArtifactError: A vector is missing, not finite, not of unit length or of another dimension; names the row.
    """
    dim = None
    for table in gallery.shards(["id", "vector"]):
        ids, column = table["id"].to_pylist(), table["vector"].combine_chunks()
        if not ids:
            continue
        if not pa.types.is_fixed_size_list(column.type):
            raise ArtifactError(f"{gallery.folder}: vectors are {column.type}, not fixed_size_list")
        dim = dim or column.type.list_size
        if column.type.list_size != dim:
            raise ArtifactError(
                f"{gallery.folder}: row {ids[0]!r} has {column.type.list_size} dimensions, the rows before it {dim}"
            )
        if column.null_count:
            raise ArtifactError(
                f"{gallery.folder}: row {ids[column.is_null().to_pylist().index(True)]!r} has no vector"
            )
        rows = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, dim)
        norms = np.linalg.norm(rows, axis=1)
        infinite, not_unit = ~np.isfinite(rows).all(axis=1), np.abs(norms - 1) > UNIT_TOLERANCE
        for wrong, reason in ((infinite, "is not finite"), (not_unit, "is not of unit length")):
            if wrong.any():
                raise ArtifactError(f"{gallery.folder}: the vector of row {ids[int(wrong.argmax())]!r} {reason}")
        yield ids, np.ascontiguousarray(rows / norms[:, None])


def vectors_at(gallery: ShardSet, positions: np.ndarray) -> np.ndarray:
    """The vectors [n, d] of the gallery rows at `positions` [n], in their order."""
    wanted, places = np.unique(positions, return_inverse=True)
    parts, start = [], 0
    for _, rows in vectors(gallery):
        parts.append(rows[wanted[(wanted >= start) & (wanted < start + len(rows))] - start])
        start += len(rows)
    return np.concatenate(parts)[places]


def sample(gallery: ShardSet, size: int, seed: int) -> np.ndarray:
    """At most `size` vectors [n, d] drawn without replacement, in gallery order."""
    drawn = np.random.default_rng(seed).choice(gallery.rows, min(size, gallery.rows), replace=False)
    return vectors_at(gallery, np.sort(drawn))

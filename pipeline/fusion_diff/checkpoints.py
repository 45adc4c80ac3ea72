"""Trained priors and Control-Adapters on disk, and the tables that they learn from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.artifacts import ArtifactError, ShardSet, load_weights, read_json, save_weights, sha256_file
from pipeline.artifacts.mapped import map_conditions, map_vectors
from pipeline.artifacts.weights import CONFIG, WEIGHTS, Origin
from pipeline.config import DiffusionParams, as_dict, section_from_dict
from pipeline.fusion_diff.conditions import TextConditions, Vectors
from pipeline.fusion_diff.control import ControlAdapter
from pipeline.fusion_diff.diffusion import Diffusion
from pipeline.fusion_diff.prior import Prior, PriorSizes

IN_MEMORY = 256 * 2**20
"""Shard sets of more bytes than this are not read into memory for training, which takes several times as much, but mapped."""


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
    return (
        (StoredIds(shards), map_vectors(shards), shards.identity)
        if _bytes(shards) > in_memory
        else read_vectors(folder)
    )


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
    """Ids, vectors [N, d] float32 and the identity of a shard set of `schemas.embeddings`."""
    shards = ShardSet.open(folder)
    table = shards.table(["id", "vector"])
    dim = table.schema.field("vector").type.list_size
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in table["vector"].chunks]
    vectors = np.concatenate([np.empty(0, np.float32), *parts]).astype(np.float32).reshape(-1, dim)
    return table["id"].to_pylist(), torch.from_numpy(vectors), shards.identity


def read_conditions(folder: str | Path, ids: Ids) -> tuple[TextConditions, dict[str, Any]]:
    """The texts of a shard set of `schemas.conditions` and its identity.

    Raises ArtifactError unless its rows are those of `ids`, in their order.
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


def save_prior(
    folder: str | Path,
    prior: Prior,
    diffusion: DiffusionParams,
    learned: dict[str, Any],
    log: str = "",
    origin: Origin | None = None,
) -> None:
    """Weights, sizes and diffusion process; `learned` says whose embeddings and texts the prior learned.

    log, origin: see `save_weights`.
    """
    config = {"sizes": vars(prior.sizes), "diffusion": as_dict(diffusion), **learned}
    save_weights(folder, prior.state_dict(), config, log, origin)


def load_prior(folder: str | Path, **expected: Any) -> tuple[Prior, Diffusion]:
    """A trained prior in evaluation mode. Raises ArtifactError naming the field of `expected` that differs."""
    config = _read_config(folder, "sizes", "diffusion")
    sizes = PriorSizes(**config["sizes"])
    prior = Prior(sizes)
    load_weights(folder, prior, expected)
    return prior.eval(), Diffusion(section_from_dict(DiffusionParams, config["diffusion"], str(folder)), sizes.dim)


def save_control(
    folder: str | Path,
    adapter: ControlAdapter,
    prior_folder: str | Path,
    log: str = "",
    origin: Origin | None = None,
) -> None:
    """Weights, and the hash of the prior that they belong to; log, origin: see `save_weights`."""
    save_weights(folder, adapter.state_dict(), {"prior": prior_hash(prior_folder)}, log, origin)


def load_control(folder: str | Path, prior: Prior, prior_folder: str | Path) -> ControlAdapter:
    """A trained adapter in evaluation mode. Raises ArtifactError when it was trained beside another prior."""
    adapter = ControlAdapter(prior)
    load_weights(folder, adapter, {"prior": prior_hash(prior_folder)})
    return adapter.eval()


def prior_hash(folder: str | Path) -> str:
    """SHA-256 of a prior's weights."""
    return sha256_file(Path(folder) / WEIGHTS)


def _read_config(folder: str | Path, *keys: str) -> dict[str, Any]:
    config = read_json(Path(folder) / CONFIG)
    for key in keys:
        if key not in config:
            raise ArtifactError(f"{Path(folder) / CONFIG}: {key!r} is missing")
    return config

"""How an encoding job runs: sizes, workers, and what it tolerates."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import JobsParams, MllmParams

ROWS_PER_SHARD = 2_000
"""Bounds what a killed run loses."""


@dataclass(frozen=True)
class RayOptions:
    """The workers of a Ray cluster. See `JobsParams` for the first two."""

    address: str = ""
    """A running cluster; empty: Ray is started on this machine."""
    replicas: int = 1
    """Workers, each with a model of its own."""
    gpus: int = 1
    """GPUs a worker takes, where there are any."""


@dataclass(frozen=True)
class JobOptions:
    """How a job runs. Only `batch_size` and `rows_per_shard` affect the bytes that it writes."""

    batch_size: int
    """Inputs that are encoded at once. Part of the job's identity."""
    rows_per_shard: int = ROWS_PER_SHARD
    """Rows a shard, less those rejected. No batch reaches over a shard's end."""
    workers: int = 2
    """Threads that decode images while a batch is encoded; 0: the encoding thread does it."""
    max_rejected_share: float = 0.0
    """Share of the rows that may be rejected before the job fails."""
    ray: RayOptions | None = None
    """None: this process encodes."""

    @classmethod
    def from_params(cls, model: MllmParams, jobs: JobsParams, rows_per_shard: int = ROWS_PER_SHARD) -> JobOptions:
        """The options for a job of the model that a section names."""
        ray = RayOptions(jobs.ray_address, jobs.replicas, model.gpus) if jobs.engine == "ray" else None
        return cls(model.batch_size, rows_per_shard, jobs.workers, jobs.max_rejected_share, ray)

"""Fusion-Diff on one benchmark over the values of one inference parameter (the paper's figure 5).

What the multimodal LLM says about a query does not depend on these parameters: its fused vectors and
descriptions are those that the retrieve stage wrote. Neither does the noise, so values are compared
on the same samples.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from pipeline.artifacts import ArtifactError, ShardSet, read_json, sha256_file, write_atomically, write_json
from pipeline.artifacts.atomic import as_stored
from pipeline.artifacts.model_files import WEIGHTS
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import ParameterError, Params, RetrieveParams, as_dict
from pipeline.encoders.identity import mllm_identity, text_encoder_identity
from pipeline.encoders.mllm.open import open_mllm
from pipeline.encoders.text import open_text_encoder
from pipeline.fusion_diff import ControlAdapter, Diffusion, Prior, Sampler, SamplerSettings, TextConditions
from pipeline.fusion_diff.anchor import towards
from pipeline.fusion_diff.checkpoints import load_control, load_prior
from pipeline.fusion_diff.tables import check_same_ids, read_vectors
from pipeline.query.fusion_diff import FUSED_DESCRIPTION, FUSED_ONLY
from pipeline.query.sampling import Draws, draw_targets
from pipeline.retrieval import Index, Query, load_index, rank_queries, read_queries
from pipeline.retrieval.bootstrap import mean_interval
from pipeline.retrieval.protocols import MEAN, hits
from pipeline.retrieval.spaces import FUSED
from pipeline.runtime import device

SWEPT = ("guidance_scale", "control_scale", "solver_steps")
"""gamma, delta and N."""
WITHOUT_EFFECT = ("batch_size", "fast", "fp8", "passes", "sampler", "top_k", "slerp", "image_text")
"""Other parameters of `retrieve` that change no row."""
K = 10
COLUMNS = ("kind", "recall", "low", "high")
"""After the value: the query kind (or `mean`), its R@10 in percent, and the 95% interval over queries."""


Score = tuple[str, float, float, float]
"""Kind of query, R@10 in percent, and the ends of its 95% interval."""


@dataclass(frozen=True)
class SweepPaths:
    """What a sweep reads."""

    queries: Path
    fused: Path
    """z_r,delta of the queries (`schemas.embeddings`)."""
    anchor: Path
    """Their fused descriptions."""
    descriptions: Path
    index: Path
    """The gallery in f_M's space."""
    prior: Path = Path("models/prior")
    control: Path = Path("models/control")

    @classmethod
    def of(cls, benchmark: str) -> SweepPaths:
        """Where the retrieve stage left a benchmark. Raises ParameterError when no such benchmark was prepared."""
        retrieved, queries = Path("data/retrieved") / benchmark, Path("data/benchmarks") / benchmark / "queries"
        if not (queries / MANIFEST).is_file():
            raise ParameterError(f"sweep.benchmark: {queries} is not there")
        fused, anchor, texts = (retrieved / name for name in (FUSED_ONLY, FUSED_DESCRIPTION, "descriptions"))
        return cls(queries, fused, anchor, texts, Path("data/index") / benchmark / FUSED)


def run_sweep(name: str, params: Params, paths: SweepPaths, out: Path) -> None:
    """Write `<name>.csv`, the recall of every value in `params.sweep`, and `<name>.json`, what made it.

    Rows are written value by value. Those of an earlier run are kept if all else is as it was: a run that was cut
    off goes on, and a new value costs that value alone.

    Args:
        name: The parameter, one of `SWEPT`.
        params: Its values, and all other parameters.
        paths: What is read.
        out: The folder of the two files.

    Raises:
        ArtifactError: The inputs do not belong together.
        ParameterError: There is no sweep of that name.
    """
    if name not in SWEPT:
        raise ParameterError(f"sweep: {name!r} is not one of {', '.join(SWEPT)}")
    table, record = out / f"{name}.csv", out / f"{name}.json"
    made_by = as_stored(_identity(name, params, paths))
    rows = _rows_of(table, name) if record.is_file() and read_json(record) == made_by else {}
    values = getattr(params.sweep, name)
    if any(value not in rows for value in values):
        inputs = SweepInputs.load(params, paths)
        for value in tqdm([value for value in values if value not in rows], desc=name):
            rows[value] = inputs.score(dataclasses.replace(params.retrieve, **{name: value}))
            _write(table, record, name, rows, made_by)
    _write(table, record, name, {value: rows[value] for value in values}, made_by)


@dataclass(frozen=True)
class SweepInputs:
    """What all values of a sweep share, loaded once."""

    params: Params
    queries: Sequence[Query]
    index: Index
    prior: Prior
    adapter: ControlAdapter
    diffusion: Diffusion
    texts: list[TextConditions]
    """One for each of the D descriptions."""
    fused: torch.Tensor
    """z_r,delta [Q, d]."""
    anchor: torch.Tensor
    """The fused descriptions [Q, d]."""

    @classmethod
    def load(cls, params: Params, paths: SweepPaths) -> SweepInputs:
        """Read models, queries and what was retrieved. Raises ArtifactError when they do not belong together."""
        where, queries = device(params.runtime), read_queries(paths.queries)
        ids = [query.query_id for query in queries]
        identity = {**mllm_identity(params.embedder), **text_encoder_identity(params.text_encoder, params.embedder)}
        prior, diffusion = load_prior(paths.prior, **identity)
        adapter = load_control(paths.control, prior, paths.prior).to(where)
        names, fused, _ = read_vectors(paths.fused)
        check_same_ids(paths.fused, names, ids)
        names, anchor, _ = read_vectors(paths.anchor)
        check_same_ids(paths.anchor, names, ids)
        described = ShardSet.open(paths.descriptions).table().to_pylist()
        check_same_ids(paths.descriptions, [row["query_id"] for row in described], ids)
        index = load_index(paths.index, threads=params.runtime.threads)
        if index.dim != fused.shape[1]:
            raise ArtifactError(f"{paths.index}: {index.dim} dimensions, but {paths.fused} has {fused.shape[1]}")
        encoder = open_text_encoder(
            params.text_encoder,
            lambda: open_mllm(params.embedder, params.jobs, params.runtime.device),
            params.runtime.device,
        )
        columns = zip(*(row["descriptions"] for row in described), strict=True)
        texts = [TextConditions.from_list(encoder.encode(list(column)), ids) for column in columns]
        return cls(params, queries, index, prior.to(where), adapter, diffusion, texts, fused, anchor)

    def score(self, retrieve: RetrieveParams) -> list[Score]:
        """The recall of targets that are sampled with these parameters, the mean over kinds first."""
        return self.recall(self.sample(retrieve), retrieve.fuse)

    def recall(self, targets: np.ndarray, fuse: str = "mean") -> list[Score]:
        """The recall of targets [Q, K, d], the mean over kinds first. fuse: how K scores become one."""
        ranked = rank_queries(self.index, self.queries, targets, K, fuse)
        found = hits([ranking.ranked_ids for ranking in ranked], [query.target_ids for query in self.queries], K)
        kinds = np.array([query.category or "all" for query in self.queries])
        rows = []
        for kind in (MEAN, *sorted(set(kinds))):
            of_kind = np.full(len(kinds), True) if kind == MEAN else kinds == kind
            interval = mean_interval(found[of_kind], kinds[of_kind], self.params.report.bootstrap, self.params.seed)
            estimate, low, high = (round(number, 2) for number in (interval.estimate, interval.low, interval.high))
            rows.append((str(kind), estimate, low, high))
        return rows

    def sample(self, retrieve: RetrieveParams) -> np.ndarray:
        """Targets [Q, K, d], as the retrieve stage samples them, on the plain path."""
        sampler = Sampler(self.prior, self.adapter, self.diffusion, SamplerSettings.from_params(retrieve))
        ids = [query.query_id for query in self.queries]
        control = self.anchor if self.params.control.signal == FUSED_DESCRIPTION else self.fused
        targets = draw_targets(sampler, ids, self.texts, control, Draws.from_params(retrieve, self.params.seed))
        return towards(torch.from_numpy(targets), self.anchor, retrieve.anchor).numpy()


def _identity(name: str, params: Params, paths: SweepPaths) -> dict[str, Any]:
    """Everything that decides a row, except the value."""
    read = {name: getattr(paths, name) for name in ("queries", "fused", "anchor", "descriptions", "index")}
    retrieve = {key: value for key, value in as_dict(params.retrieve).items() if key not in (name, *WITHOUT_EFFECT)}
    return {
        "benchmark": params.sweep.benchmark,
        "profile": params.profile,
        "seed": params.seed,
        "bootstrap": params.report.bootstrap,
        "retrieve": retrieve,
        "prior": _hash(paths.prior / WEIGHTS),
        "control": _hash(paths.control / WEIGHTS),
        **{key: _content(folder) for key, folder in read.items()},
    }


def _content(folder: Path) -> Any:
    """The hashes of what a shard set or an index holds, whatever made it."""
    manifest = read_json(folder / MANIFEST)
    return manifest.get("index_sha256") or [shard["sha256"] for shard in manifest["shards"]]


def _hash(path: Path) -> str:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file")
    return sha256_file(path)


def _rows_of(path: Path, name: str) -> dict[float, list[Score]]:
    """Value -> its rows, as `run_sweep` wrote them."""
    rows: dict[float, list[Score]] = {}
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                rows.setdefault(float(row[name]), []).append(
                    (row["kind"], float(row["recall"]), float(row["low"]), float(row["high"]))
                )
    return rows


def _write(
    table: Path,
    record: Path,
    name: str,
    rows: dict[float, list[Score]],
    made_by: dict[str, Any],
) -> None:
    record.unlink(missing_ok=True)  # a table without a record is nobody's
    with write_atomically(table) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([name, *COLUMNS])
        writer.writerows([f"{value:g}", *row] for value in sorted(rows) for row in rows[value])
    write_json(record, made_by)

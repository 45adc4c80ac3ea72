"""What the indexes that answered cost in recall, from their manifests."""

from __future__ import annotations

from pathlib import Path

from pipeline.artifacts import ArtifactError, read_json
from pipeline.artifacts.shards import MANIFEST
from pipeline.retrieval.index import RECALL


def index_metrics(folder: str | Path) -> dict[str, dict[str, dict[str, float]]]:
    """Benchmark -> space -> `recall@10` against exact search, in percent, of `<folder>/<benchmark>/<space>`.

    An index whose recall was not measured is left out. Raises ArtifactError where there is no index.
    """
    manifests = sorted(Path(folder).glob(f"*/*/{MANIFEST}"))
    if not manifests:
        raise ArtifactError(f"{folder}: no index is there")
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for path in manifests:
        recall = read_json(path).get(RECALL)
        if recall is not None:
            space = path.parent
            metrics.setdefault(space.parent.name, {})[space.name] = {RECALL: round(100 * recall, 2)}
    return metrics

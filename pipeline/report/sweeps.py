"""The sweeps that `stages/sweep.py` wrote, as a report reads them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import ArtifactError, read_json
from pipeline.retrieval.protocols import MEAN

LABELS = {"guidance_scale": "guidance scale γ", "control_scale": "control scale δ", "solver_steps": "solver steps N"}


@dataclass(frozen=True)
class Sweep:
    """R@10 of Fusion-Diff over the values of one inference parameter."""

    name: str
    benchmark: str
    points: Mapping[str, list[tuple[float, float, float, float]]]
    """Kind (and `mean`) -> value, R@10 and its 95% interval, in percent."""
    weights: Mapping[str, str]
    """SHA-256 of the `prior` and the `control` that were sampled from."""

    @property
    def label(self) -> str:
        return LABELS.get(self.name, self.name.replace("_", " "))

    @property
    def best(self) -> tuple[float, float]:
        """The value with the highest mean, the lowest of several, and that mean."""
        value, recall, _, _ = max(self.points[MEAN], key=lambda point: point[1])
        return value, recall


def read_sweeps(folder: Path) -> list[Sweep]:
    """All sweeps in `folder`, by name; none where there is no folder.

    Raises:
        ArtifactError: A file is no sweep; names it.
    """
    order = list(LABELS)
    sweeps = [_read(path) for path in sorted(Path(folder).glob("*.csv"))]
    return sorted(
        sweeps, key=lambda sweep: (order.index(sweep.name) if sweep.name in order else len(order), sweep.name)
    )


def _read(path: Path) -> Sweep:
    made_by = read_json(path.with_suffix(".json"))
    points: dict[str, list[tuple[float, float, float, float]]] = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                point = (float(row[path.stem]), float(row["recall"]), float(row["low"]), float(row["high"]))
                points.setdefault(row["kind"], []).append(point)
        if not points[MEAN]:
            raise KeyError(MEAN)
        return Sweep(path.stem, made_by["benchmark"], points, {name: made_by[name] for name in ("prior", "control")})
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: not a sweep ({error})") from None

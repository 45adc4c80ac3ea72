"""What an index costs: flat, HNSW and IVF-PQ as this project builds them, and usearch, on the same vectors and queries.

    python -m bench.index                 # a million vectors of 1536 dimensions
    python -m bench.index --rows 50000    # a quick try

Each index is built and searched in a process of its own, so that its peak memory is its own. Recall@10 is
against flat's answers. `reports/bench/index.json` is written after every index; a run that was cut off goes on
where it stopped, as long as data, threads and versions are the same. Beside queries/s stand queries per second
of processor time, which other work on the machine does not take away, and the load that there was.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

from bench.engines import ENGINES, Engine
from bench.machine import hardware, peak_memory_mib, versions
from bench.vectors import Data
from pipeline.artifacts import ArtifactError, read_json, write_json
from pipeline.config import ParameterError
from pipeline.errors import report_user_errors

K = 10
TARGETS = (0.95, 0.99)
PASSES, SINGLE = 5, 200
"""Timed passes over all queries at a reported point; queries asked one by one there."""
FLAT_SINGLE = 20
LEVELLED_OFF = 5e-4
"""A sweep ends where the next value gains less than this."""
TRUTH = "truth.npy"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@report_user_errors()
def main(  # noqa: PLR0913 - one option an argument
    rows: Annotated[int, typer.Option(help="Vectors.", min=1000)] = 1_000_000,
    dim: Annotated[int, typer.Option(min=8)] = 1536,
    queries: Annotated[int, typer.Option(min=10)] = 1000,
    threads: Annotated[int, typer.Option(help="Threads, and the cores that they may use.", min=1)] = 2,
    kinds: Annotated[str, typer.Option(help="Which indexes, joined by commas; flat is always one of them.")] = ",".join(
        ENGINES
    ),
    out: Annotated[Path, typer.Option(help="The result; an unfinished one is continued.")] = Path(
        "reports/bench/index.json"
    ),
    scratch: Annotated[Path, typer.Option(help="Vectors are written here and removed at the end.")] = Path(
        "data/bench_index"
    ),
) -> None:
    """Measure build time, peak memory, and queries/s at recall@10 of 0.95 and 0.99."""
    wanted = ["flat", *(kind for kind in kinds.split(",") if kind != "flat")]
    if unknown := [kind for kind in wanted if kind not in ENGINES]:
        raise ParameterError(f"--kinds: {unknown[0]!r} is not one of {', '.join(ENGINES)}")
    if "usearch" in wanted and find_spec("usearch") is None:
        raise ParameterError("--kinds: usearch is not installed; it is in the extra 'bench'")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)  # read by the processes that are started below
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # a thread that waits for others takes no processor time
    data = Data(rows, dim, queries)
    result = _continued(
        out,
        {
            "command": f"python -m bench.index --rows {rows} --dim {dim} --queries {queries} --threads {threads}",
            "data": data.describe(),
            "threads": threads,
            "hardware": hardware(),
            "versions": versions("faiss-cpu", "numpy", *(kind for kind in wanted if kind == "usearch")),
        },
    )
    if not data.is_written(scratch):
        _alone(data.write, scratch)
    failed = []
    for kind in wanted:
        if kind in result["indexes"] and (kind != "flat" or (scratch / TRUTH).is_file()):
            continue
        try:
            result["indexes"][kind] = _alone(measure, kind, data, scratch, threads)
        except BrokenProcessPool:  # killed, most likely for its memory; the others may fit
            failed.append(kind)
            continue
        result["comparison"] = compare(result["indexes"])
        write_json(out, result)
    typer.echo(table(result))
    if failed:
        raise ArtifactError(
            f"{out}: without {', '.join(failed)}, whose processes were killed; the same command tries again"
        )
    shutil.rmtree(scratch)


def measure(kind: str, data: Data, scratch: Path, threads: int) -> dict[str, Any]:
    """Build one index and find its cheapest search for each recall.

    Flat writes the answers that recall is counted from.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    before = peak_memory_mib()
    engine = ENGINES[kind](data, scratch, threads)
    load, (_, spent, build) = [round(value, 1) for value in os.getloadavg()[:2]], _clocked(engine.build)
    result: dict[str, Any] = {
        "load_at_start": load,
        "build": build | {"cpu_s": round(spent, 2)},
        "memory_mib": {"before": before, "built": peak_memory_mib()},
    }
    queries = np.load(scratch / "queries.npy")
    if kind == "flat":
        np.save(scratch / TRUTH, engine.search(queries, K))
    truth = np.load(scratch / TRUTH)
    curve = _curve(engine, queries, truth)
    result |= {"settings": engine.settings, "curve": curve, "at": {}}
    timed: dict[str, dict[str, Any]] = {}  # one point may serve both targets
    for target in TARGETS:
        reached = [point for point in curve if point["recall@10"] >= target]
        if reached:
            best = max(reached, key=lambda point: point["queries_per_cpu_s"])
            name = str(best["setting"])
            timed[name] = timed.get(name) or _timed(engine, best["setting"], queries, truth)
            result["at"][f"{target:.2f}"] = {"setting": best["setting"], "recall@10": best["recall@10"], **timed[name]}
    result["memory_mib"]["searched"] = peak_memory_mib()
    return result


def _curve(engine: Engine, queries: np.ndarray, truth: np.ndarray) -> list[dict[str, Any]]:
    """Recall and queries/s, all queries in one call, along every sweep, with the least value for each target in it."""

    def at(setting: dict[str, int]) -> dict[str, Any]:
        engine.limit(**setting)
        seconds, spent, found = _clocked(lambda: engine.search(queries, K))
        return {
            "setting": setting,
            "recall@10": recall(found, truth),
            "queries_per_s": round(len(queries) / seconds, 2),
            "queries_per_cpu_s": round(len(queries) / spent, 2),
        }

    if not engine.sweeps:
        return [at({})]
    points = []
    for fixed, rising, values in engine.sweeps:

        def along(value: int, fixed: dict[str, int] = fixed, rising: str = rising) -> dict[str, Any]:
            return at({**fixed, rising: value})

        if not points:
            along(values[0])  # warms caches and threads
        points += _sweep(along, values)
    return points


def _sweep(at: Callable[[int], dict[str, Any]], values: Sequence[int]) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    before = -1.0
    for value in values:
        found[value] = at(value)
        now = found[value]["recall@10"]
        if now >= max(TARGETS) or now - before < LEVELLED_OFF:
            break
        before = now
    for target in TARGETS:
        _bisect(at, found, target)
    return [found[value] for value in sorted(found)]


def _bisect(at: Callable[[int], dict[str, Any]], found: dict[int, dict[str, Any]], target: float) -> None:
    """Add to `found` the least value that reaches the target, if one does."""
    reaching = [value for value, point in found.items() if point["recall@10"] >= target]
    if not reaching:
        return
    high = min(reaching)
    low = max((value for value in found if value < high), default=high)
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        found[middle] = at(middle)
        low, high = (low, middle) if found[middle]["recall@10"] >= target else (middle, high)


def _timed(engine: Engine, setting: dict[str, int], queries: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Queries/s of one setting: all in one call (the median of PASSES), one by one, and through `Index.search`."""
    engine.limit(**setting)
    passes = [_clocked(lambda: engine.search(queries, K))[:2] for _ in range(PASSES)]
    rates = sorted(len(queries) / seconds for seconds, _ in passes)
    alone = queries[: SINGLE if setting else FLAT_SINGLE]
    seconds = [_clocked(lambda query=query: engine.search(query[None], K))[0] for query in alone]
    timed = {
        "together": {
            "queries": len(queries),
            "queries_per_s": round(median(rates), 2),
            "least": round(rates[0], 2),
            "most": round(rates[-1], 2),
            "queries_per_cpu_s": round(len(queries) / median(spent for _, spent in passes), 2),
        },
        "one_by_one": {
            "queries": len(alone),
            "queries_per_s": round(len(alone) / sum(seconds), 2),
            "median_ms": round(1000 * median(seconds), 3),
        },
    }
    if engine.ranked(queries[:1], K) is not None:
        seconds, spent, found = _clocked(lambda: engine.ranked(queries, K))
        timed["index_search"] = {
            "queries_per_s": round(len(queries) / seconds, 2),
            "queries_per_cpu_s": round(len(queries) / spent, 2),
            "recall@10": recall(found, truth),
        }
    return timed


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    """The share of the true positions [Q, K] that are among those found [Q, K]."""
    return round(float((truth[:, :, None] == found[:, None, :]).any(axis=2).mean()), 5)


def compare(indexes: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Index and recall -> how many times flat's, and the peer's, queries a second, all in one call.

    By the clock and by processor time.
    """

    def rate(kind: str, target: str, unit: str) -> float | None:
        return indexes.get(kind, {}).get("at", {}).get(target, {}).get("together", {}).get(unit)

    ratios: dict[str, dict[str, float]] = {}
    for kind in indexes:
        for target in indexes[kind]["at"]:
            for other in ("flat", "usearch"):
                for unit, what in (("queries_per_s", ""), ("queries_per_cpu_s", ", processor time")):
                    if kind not in (other, "flat") and (reference := rate(other, target, unit)):
                        times = round(rate(kind, target, unit) / reference, 2)
                        ratios.setdefault(f"{kind} at {target}", {})[f"times {other}{what}"] = times
    return ratios


def table(result: dict[str, Any]) -> str:
    """The result as Markdown, for the documentation."""
    lines = [
        "| index | build: clock, processor | peak memory "
        "| queries a second of the clock, of a processor, at recall 0.95 | at 0.99 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, measured in result["indexes"].items():
        cells = []
        for target in (f"{target:.2f}" for target in TARGETS):
            at = measured["at"].get(target)
            together = at and at["together"]
            cells.append(
                f"{together['queries_per_s']:,.0f}, {together['queries_per_cpu_s']:,.0f}" if at else "not reached"
            )
        build, memory = measured["build"], measured["memory_mib"]["searched"] / 1024
        clocks = f"{build['build_s']:,.0f} s, {build['cpu_s']:,.0f} s"
        lines.append(f"| {kind} | {clocks} | {memory:.1f} GiB | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def _continued(out: Path, start: dict[str, Any]) -> dict[str, Any]:
    """The unfinished result of the same measurement, or a new one."""
    try:
        before = read_json(out)
    except ArtifactError:
        before = {}
    same = all(before.get(key) == value for key, value in start.items())
    return before if same and set(before["indexes"]) < set(ENGINES) else {**start, "indexes": {}, "comparison": {}}


def _clocked(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds by the clock, seconds that this process's threads computed, and what `work` returned."""
    started, spent = time.perf_counter(), time.process_time()
    value = work()
    return time.perf_counter() - started, time.process_time() - spent, value


def _alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run in a new process and wait; what it held goes with it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


if __name__ == "__main__":
    app()

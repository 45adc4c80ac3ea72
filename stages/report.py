"""report: ranked lists and training logs -> reports/: metrics, plots, tables, figures and one page."""

from __future__ import annotations

from pathlib import Path

from pipeline.artifacts import ShardSet, read_json, sha256_file
from pipeline.artifacts.model_files import WEIGHTS, is_skipped
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import Params, as_dict, load_params, load_profile
from pipeline.decoder.fidelity import FIDELITY
from pipeline.decoder.imagine import FOLDER as DECODER
from pipeline.decoder.imagine import Imagination
from pipeline.errors import run_stage
from pipeline.query.fusion_diff import FUSED_ONLY
from pipeline.query.outputs import SAMPLED
from pipeline.report import BenchmarkPaths, PublicSplitPaths, ReportInputs, build_report, changed_parameters
from pipeline.report.diffcomp_view import open_view
from pipeline.report.imagined import Features
from pipeline.report.indexes import index_metrics
from pipeline.report.sweeps import LABELS
from pipeline.retrieval.benchmarks import BenchmarkFolder, find_benchmarks
from pipeline.retrieval.spaces import CLIP, FUSED
from pipeline.runtime import set_up

RETRIEVED, RERANKED, GALLERY, INDEX, MODELS, FOLDER, LOG = (
    Path("data/retrieved"),
    Path("data/reranked"),
    Path("data/gallery"),
    Path("data/index"),
    Path("models"),
    Path("reports"),
    "training.csv",
)


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    found = find_benchmarks()
    shown = [folder for folder in found if not folder.benchmark.public] or [
        folder for folder in found if not folder.private
    ][:1]
    benchmarks = [benchmark_paths(folder) for folder in shown]
    trained = ["prior"] if is_skipped(MODELS / "control") else ["prior", "control"]
    losses = {"control_adapter" if name == "control" else name: MODELS / name / LOG for name in trained}
    losses |= {name: MODELS / "diffcomp" / name / LOG for name in params.diffcomp_variants}
    imagination = Imagination.open_fitting(params)
    build_report(
        ReportInputs(
            benchmarks,
            FOLDER,
            params.profile,
            changed=changed_parameters(as_dict(params), as_dict(load_profile(params.profile))),
            losses=losses,
            descriptions=descriptions_of(benchmarks[0].name),
            index=index_metrics(INDEX),
            sweeps=FOLDER / "sweeps",
            weights={name: sha256_file(MODELS / name / WEIGHTS) for name in trained},
            diffcomp_view=open_view(params, shown[0].path / "queries", shown[0].images),
            used={name: getattr(params.retrieve, name) for name in LABELS},
            ablations=FOLDER / "ablations",
            peers=FOLDER / "peers",
            seeds=FOLDER / "seeds",
            seed=params.seed,
            bootstrap=params.report.bootstrap,
            page_megabytes=params.report.page_megabytes,
            public=[public_split_paths(folder) for folder in found if folder.benchmark.public],
            features=features_of(params, shown[0], imagination),
            fidelity=read_json(DECODER / FIDELITY) if imagination else {},
            backbones={FUSED: params.embedder.path, CLIP: params.diffcomp.backbone}
            | {name: variant.backbone for name, variant in params.variants().items()},
        )
    )


def features_of(params: Params, shown: BenchmarkFolder, imagination: Imagination | None) -> Features | None:
    """What decodes the features of a benchmark's queries; None without a decoder, or without sampled targets."""
    asked, sampled = (RETRIEVED / shown.name / name for name in (FUSED_ONLY, SAMPLED))
    if imagination is None or not all((folder / MANIFEST).is_file() for folder in (asked, sampled)):
        return None
    return Features(imagination, params.imagine.queries, asked, sampled, GALLERY / shown.gallery / FUSED)


def benchmark_paths(folder: BenchmarkFolder) -> BenchmarkPaths:
    out = RETRIEVED / folder.name
    genecis = folder.path / "genecis" if "genecis" in folder.query_sets else None
    return BenchmarkPaths(
        folder.name,
        folder.path / "queries",
        out / "rankings",
        folder.images,
        genecis,
        genecis and out / "genecis",
        out / "similarities",
        RERANKED / folder.name,
    )


def public_split_paths(folder: BenchmarkFolder) -> PublicSplitPaths:
    aspects = folder.path / "aspects"
    return PublicSplitPaths(
        folder.name,
        folder.benchmark,
        folder.identity["split"],
        folder.path / "queries",
        RETRIEVED / folder.name / "rankings",
        aspects if (aspects / MANIFEST).is_file() else None,
        folder.private,
    )


def descriptions_of(benchmark: str) -> dict[str, str]:
    """Query id -> the likeliest target description."""
    rows = ShardSet.open(RETRIEVED / benchmark / "descriptions").table().to_pylist()
    return {row["query_id"]: row["descriptions"][0] for row in rows}


if __name__ == "__main__":
    run_stage(main)

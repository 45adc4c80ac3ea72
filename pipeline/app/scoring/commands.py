"""`cir score` and `cir submit`: official scores and the servers' files, from anybody's ranked lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.app.errors import report_errors

AnnotationsFolder = Annotated[
    Path, typer.Option("--annotations", help="The folder with the annotation files, in their official layout.")
]
PredictionFiles = Annotated[
    list[Path],
    typer.Option(
        "--predictions",
        help=(
            "JSON of query id -> ranked image ids (CIRR and CIRCO: their servers' formats too), "
            "or a folder of rankings; may be repeated."
        ),
    ),
]


@report_errors()
def score(
    benchmark: Annotated[str, typer.Argument(help="fashioniq, cirr, circo or genecis.")],
    annotations: AnnotationsFolder,
    predictions: PredictionFiles,
    split: Annotated[str, typer.Option(help="val; or one of GeneCIS' tasks.")] = "val",
) -> None:
    """Score ranked lists by a benchmark's official protocol and print JSON, in percent.

    Query ids are CIRR's pairid, CIRCO's id, `dress/0` (category/row) in FashionIQ and `focus_object/0`
    (task/row) in GeneCIS. CIRR's subset scores need lists that hold the whole group, or the server's
    recall_subset file beside the other.
    """
    from pipeline.app.scoring.official import score as official_scores
    from pipeline.app.scoring.predictions import read_predictions
    from pipeline.retrieval.benchmarks import BENCHMARKS
    from pipeline.sources.benchmarks import read_annotations

    parts = read_annotations(benchmark, annotations, split)
    scores = official_scores(parts, read_predictions(predictions, BENCHMARKS[benchmark]))
    if any(part.gallery is None for part in parts):
        typer.echo(
            "note: COCO's image list is not among the annotations, so image ids were checked for their form only",
            err=True,
        )
    if remark := BENCHMARKS[benchmark].remark(scores):
        typer.echo(f"note: {remark}", err=True)
    typer.echo(json.dumps(scores, indent=2))


@report_errors()
def submit(
    benchmark: Annotated[str, typer.Argument(help="cirr or circo.")],
    annotations: AnnotationsFolder,
    predictions: PredictionFiles,
    out: Annotated[Path, typer.Option(help="The folder to write into.")],
    split: Annotated[str, typer.Option(help="Default: the split that the server scores.")] = "",
    name: Annotated[str, typer.Option(help="What the files' names begin with.")] = "submission",
) -> None:
    """Write the files for a benchmark's evaluation server; incomplete or repeated lists are rejected."""
    from pipeline.app.scoring.official import check_whole, subset_lists
    from pipeline.app.scoring.predictions import AnnotatedSplit, read_predictions
    from pipeline.retrieval.benchmarks import BENCHMARKS
    from pipeline.retrieval.submissions import DEPTH, PredictionError, write_files
    from pipeline.sources.benchmarks import read_annotations

    served = {name: known for name, known in BENCHMARKS.items() if known.server_split}
    if benchmark not in served:
        raise PredictionError(f"{benchmark!r} has no evaluation server; {' and '.join(served)} have")
    asked_for = split or served[benchmark].server_split
    queries = AnnotatedSplit.of(read_annotations(benchmark, annotations, asked_for))
    found = read_predictions(predictions, served[benchmark])
    check_whole(found.ranked, queries, DEPTH)
    within = subset_lists(found, queries) if served[benchmark].scores_groups else {}
    if within is None:
        raise PredictionError(
            f"{benchmark}: the lists do not hold all members of every group; give the rankings within the groups too"
        )
    query_ids = list(queries.by_id)
    files = served[benchmark].server_files(
        name,
        {query_id: found.ranked[query_id] for query_id in query_ids},
        {query_id: within[query_id] for query_id in query_ids if within},
        {query.query_id: query.reference for query in queries.queries},
    )
    for path in write_files(out, files):
        typer.echo(path)

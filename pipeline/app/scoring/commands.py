"""`cir score` and `cir submit`: official figures and the servers' files, from anybody's ranked lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import report_user_errors

AnnotationsFolder = Annotated[
    Path, typer.Option("--annotations", help="The folder with the annotation files, in their official layout.")
]
PredictionFiles = Annotated[
    list[Path],
    typer.Option(
        "--predictions",
        help=(
            "JSON of query id -> ranked image ids (CIRR and CIRCO: their servers' formats too), or a folder of rankings; may be repeated."
        ),
    ),
]


@report_user_errors()
def score(
    benchmark: Annotated[str, typer.Argument(help="fashioniq, cirr, circo or genecis.")],
    annotations: AnnotationsFolder,
    predictions: PredictionFiles,
    split: Annotated[str, typer.Option(help="val; or one of GeneCIS' tasks.")] = "val",
) -> None:
    """Score ranked lists by a benchmark's official protocol and print JSON, in percent.

    Query ids are CIRR's pairid, CIRCO's id, `dress/0` (category/row) in FashionIQ and `focus_object/0`
    (task/row) in GeneCIS. CIRR's subset figures need lists that hold the whole group, or the server's
    recall_subset file beside the other.
    """
    from pipeline.app.scoring.official import score as official_scores
    from pipeline.app.scoring.predictions import read_predictions
    from pipeline.sources.benchmarks import read_annotations

    asked = read_annotations(benchmark, annotations, split)
    scores = official_scores(asked, read_predictions(predictions, benchmark))
    if any(one.gallery is None for one in asked):
        typer.echo(
            "note: COCO's image list is not among the annotations, so image ids were checked for their form only",
            err=True,
        )
    if benchmark == "cirr" and len(scores) == 4:
        typer.echo("note: no R_subset: the lists do not hold all members of every group", err=True)
    typer.echo(json.dumps(scores, indent=2))


@report_user_errors()
def submit(
    benchmark: Annotated[str, typer.Argument(help="cirr or circo.")],
    annotations: AnnotationsFolder,
    predictions: PredictionFiles,
    out: Annotated[Path, typer.Option(help="The folder to write into.")],
    split: Annotated[str, typer.Option(help="Default: the split that the server scores.")] = "",
    name: Annotated[str, typer.Option(help="What the files' names begin with.")] = "submission",
) -> None:
    """Write the files for a benchmark's evaluation server; incomplete or repeated lists are refused."""
    from pipeline.app.scoring.official import check_whole, subset_lists
    from pipeline.app.scoring.predictions import Asked, read_predictions
    from pipeline.retrieval.submissions import DEPTH, SERVERS, PredictionError, submission_files, write_files
    from pipeline.sources.benchmarks import READERS, read_annotations

    if benchmark not in SERVERS:
        raise PredictionError(f"{benchmark!r} has no evaluation server; {' and '.join(SERVERS)} have")
    asked = Asked.of(read_annotations(benchmark, annotations, split or READERS[benchmark].splits[-1]))
    found = read_predictions(predictions, benchmark)
    check_whole(found.ranked, asked, DEPTH)
    subset = subset_lists(found, asked) if benchmark == "cirr" else {}
    if subset is None:
        raise PredictionError(
            f"{benchmark}: the lists do not hold all members of every group; give the rankings within the groups too"
        )
    in_order = [query.query_id for query in asked.queries]
    files = submission_files(
        benchmark,
        name,
        {query_id: found.ranked[query_id] for query_id in in_order},
        {query_id: subset[query_id] for query_id in in_order if subset},
        {query.query_id: query.reference for query in asked.queries},
    )
    for path in write_files(out, files):
        typer.echo(path)

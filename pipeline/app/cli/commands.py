"""`cir index`, `cir search`, `cir demo`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.config import Params, load_params
from pipeline.errors import report_user_errors

ParamsFile = Annotated[Path, typer.Option("--params", help="The parameters: sizes, models, defaults.")]
GalleryOption = Annotated[
    str, typer.Option(help="An indexed folder, its library, or a benchmark's name; empty: the pipeline's benchmark.")
]


ThreadsOption = Annotated[
    int, typer.Option(min=1, help="Threads of a search; more serve large models on a quiet machine.")
]


def _set_up(path: Path, threads: int | None = None) -> Params:
    """`threads`: instead of the parameters'. A small model asked for one image gains nothing from two, which wait for each other."""
    from pipeline.runtime import set_up

    params = load_params(path)
    params.runtime.threads = threads or params.runtime.threads
    set_up(params.runtime, params.seed)
    return params


@report_user_errors()
def index(
    folder: Annotated[Path, typer.Argument(help="A folder of images; folders below it are searched too.")],
    out: Annotated[Path | None, typer.Option(help="Where the library goes; default: FOLDER/.cir.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Index for this method (repeatable); default: the usual ones.")
    ] = None,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Embed and index a folder of images. Run it again to go on after an interruption."""
    from pipeline.app.search.library import index_folder

    done = index_folder(folder, _set_up(params), out, method or ())
    typer.echo(f"{done.library}: {done.pictures} images in {', '.join(done.spaces)}")
    for space, reason in done.left_out.items():
        typer.echo(f"left out: {space} ({reason})")
    if done.rejected:
        typer.echo(f"{done.rejected} could not be read; {done.rejections} says why")


@report_user_errors()
def search(
    image: Annotated[str, typer.Option(help="The reference: a file, or the id of an image of the gallery.")],
    text: Annotated[str, typer.Option(help="What should be different; `-` reads one text a line from standard input.")],
    method: Annotated[
        list[str] | None, typer.Option(help="Repeat it to compare methods; default: fusion_diff.")
    ] = None,
    top: Annotated[int, typer.Option(help="How many answers.")] = 10,
    gallery: GalleryOption = "",
    negative: Annotated[str, typer.Option(help="What the answer should not be.")] = "",
    negative_weight: Annotated[
        float, typer.Option(help="How far it is subtracted (all but the sampling methods).")
    ] = 0.2,
    region: Annotated[
        str, typer.Option(help="DiffComp: what changes; x0,y0,x1,y1 in shares of the image, or a mask image.")
    ] = "",
    concept: Annotated[str, typer.Option(help="Fusion-Diff: what the reference and the answer have in common.")] = "",
    guidance: Annotated[float | None, typer.Option(help="Fusion-Diff: guidance scale gamma.")] = None,
    control: Annotated[float | None, typer.Option(help="Fusion-Diff: control scale delta.")] = None,
    hypotheses: Annotated[int | None, typer.Option(help="Fusion-Diff: how many targets are sampled.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a search.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page with the images.")] = None,
    threads: ThreadsOption = 1,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Search a gallery by an image and what should be different about it."""
    from rich.console import Console

    from pipeline.app.search import results as show
    from pipeline.app.search.galleries import open_gallery
    from pipeline.app.search.reference import find_reference
    from pipeline.app.search.requests import Request, read_region
    from pipeline.app.search.searcher import Searcher
    from pipeline.artifacts import write_atomically
    from pipeline.query.methods import Controls

    where = open_gallery(gallery or None)
    reference, exclude = find_reference(image, where)
    controls = Controls(
        negative,
        negative_weight,
        read_region(region, reference.size) if region else None,
        guidance,
        control,
        hypotheses,
    )
    methods = method or ["fusion_diff"]
    texts = (line.strip() for line in sys.stdin if line.strip()) if text == "-" else [text]
    searcher, found, console = None, [], Console()
    for one in texts:
        requests = [Request(reference, one, name, top, concept, exclude, controls) for name in methods]
        searcher = searcher or Searcher(
            _set_up(params, threads), where
        )  # after the checks: loading models takes seconds
        for request in requests:
            answer = searcher.search(request)
            found.append((request, answer))
            if as_json:
                typer.echo(json.dumps(show.as_json(request, answer), ensure_ascii=False))
            else:
                console.print(show.as_table(request, answer))
    if html:
        with write_atomically(html) as aside:
            aside.write_text(show.as_html(found, where), encoding="utf-8")


@report_user_errors()
def demo(
    gallery: GalleryOption = "",
    host: Annotated[str, typer.Option(help="Who may connect: this machine alone unless told otherwise.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where it listens.")] = 7860,
    threads: ThreadsOption = 1,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Open the demo page over a gallery."""
    from pipeline.app.page.layout import serve
    from pipeline.app.search.galleries import open_gallery
    from pipeline.app.search.searcher import Searcher

    serve(Searcher(_set_up(params, threads), open_gallery(gallery or None)), host, port)

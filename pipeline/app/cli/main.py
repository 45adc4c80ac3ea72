"""`cir`: the command line. What only one command needs is imported inside it, so that `cir --help` is quick."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.app.cli import export, library, models, options, serve
from pipeline.app.cli.lean import leave_out_unused, run_one_command
from pipeline.app.cli.project import check_file_to_write, check_folder, check_methods, check_not_empty, set_up
from pipeline.app.cli.rejected import rejected
from pipeline.app.errors import report_errors
from pipeline.app.given_paths import enter_project
from pipeline.app.scoring.commands import score, submit
from pipeline.app.search.examples import in_help
from pipeline.config import ParameterError, load_profile
from pipeline.errors import DEBUG

if TYPE_CHECKING:
    from pipeline.app.search.answers import Answer
    from pipeline.app.search.requests import Request

IMAGES, BENCHMARKS, PROJECT = "Search images", "Score rankings", "Inspect the project"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
@report_errors()
def cir(debug: options.Debug = False, version: options.Version = False, project: options.ProjectFolder = None) -> None:
    """Zero-shot composed image retrieval with Fusion-Diff and DiffComp.

    Find images by a reference image and a text that says what should be different about it.
    """
    if debug:
        os.environ[DEBUG] = "1"
    enter_project(project)


app.add_typer(library.app)


@app.command(rich_help_panel=IMAGES, epilog=in_help())
@report_errors()
def search(  # noqa: PLR0913 - one argument an option
    image: options.ReferenceName,
    text: options.Modification,
    method: options.SearchedMethods = None,
    top: options.Top = 10,
    rerank: options.Rerank = 0,
    gallery: options.GalleryName = "",
    where: options.Where = "",
    negative: options.Negative = "",
    negative_weight: options.NegativeWeight = 0.2,
    region: options.Region = "",
    concept: options.Concept = "",
    guidance: options.Guidance = None,
    control: options.Control = None,
    hypotheses: options.Hypotheses = None,
    sampler: options.SamplerName = None,
    describer: options.DescriberName = "",
    as_json: options.AsJson = False,
    html: options.HtmlPath = None,
    threads: options.Threads = 1,
    params: options.ParamsPath = options.PARAMS_FILE,
) -> None:
    """Search a gallery by a reference image and a modification text."""
    from pipeline.app.search.galleries import FolderGallery, open_gallery
    from pipeline.app.search.own_encoder import warning
    from pipeline.app.search.reference import find_reference

    check_folder(params)
    check_file_to_write(html, "--html")
    opened = open_gallery(gallery or None)
    methods = method or [opened.default_method]
    loaded = check_methods(methods, params, opened.encoder, describer, sampler)
    opened.check_filter(where)
    reference, reference_id = find_reference(image, opened)
    # Only now: what follows loads torch.
    from pipeline.app.search.requests import Request, read_region
    from pipeline.app.search.results import write_html
    from pipeline.app.search.searcher import Searcher
    from pipeline.query.interface import Controls

    mask = read_region(region, reference.size) if region else None
    controls = Controls(negative, negative_weight, mask, guidance, control, hypotheses)
    sought = partial(Request, reference, top=top, rerank=rerank, where=where, exclude=reference_id)
    make_request = partial(sought, concept=concept, controls=controls)
    searcher, found = None, []
    for request in (make_request(words, name) for words in _texts(text) for name in methods):
        # Only now, after the request's own checks: loading the models takes seconds.
        leave_out_unused()
        searcher = searcher or Searcher(set_up(loaded, threads), opened, describer=describer)
        answer = searcher.search(request)
        found.append((request, answer))
        _print_answer(request, answer, as_json)
    if html:
        write_html(html, found, opened, searcher.decoded if searcher else None)
        typer.echo(f"{html}: the page with the images", err=True)
    if searcher and opened.warns(searcher.params):
        typer.echo(warning(opened.root if isinstance(opened, FolderGallery) else opened.name), err=True)


@app.command(rich_help_panel=IMAGES)
@report_errors()
def demo(
    gallery: options.GalleryName = "",
    host: options.Host = "127.0.0.1",
    port: options.Port = 7860,
    describer: options.DescriberName = "",
    threads: options.Threads = 1,
    params: options.ParamsPath = options.PARAMS_FILE,
) -> None:
    """Serve a web page that searches a gallery."""
    from pipeline.app.search.galleries import open_gallery

    check_folder(params)
    opened = open_gallery(gallery or None)
    # Only now: what follows loads torch.
    from pipeline.app.page.server import serve as serve_page
    from pipeline.app.search.searcher import Searcher

    serve_page(Searcher(set_up(params, threads), opened, describer=describer), host, port)


app.add_typer(serve.app)
app.add_typer(export.app)
app.command(rich_help_panel=BENCHMARKS)(score)
app.command(rich_help_panel=BENCHMARKS)(submit)
app.command(rich_help_panel=PROJECT)(rejected)
app.add_typer(models.app, name="models", rich_help_panel=PROJECT)
app.command(rich_help_panel=PROJECT)(models.check)


@app.command(rich_help_panel=PROJECT)
@report_errors()
def info(
    profile: Annotated[str, typer.Option(help="A profile of conf/profile/.")] = "offline",
    conf: Annotated[Path, typer.Option(help="The folder with the profiles.")] = Path("conf"),
) -> None:
    """Print the sizes and parameter counts of a profile's models as JSON.

    No weights are loaded or downloaded.
    """
    from pipeline.app.cli.model_sizes import describe_models

    if not os.path.isdir(conf):
        raise ParameterError(f"{conf}: no such folder; run this in the project's folder, or name it with --conf")
    typer.echo(json.dumps(describe_models(load_profile(profile, conf)), indent=2))


@app.command(rich_help_panel=PROJECT)
@report_errors()
def verify(root: Annotated[Path, typer.Option(help="The project's folder.")] = Path(".")) -> None:
    """Check every file of data/, models/ and reports/ against its manifest, its inputs and dvc.lock.

    Every byte is read. Each problem is one line, and the exit status is 1 if there is any.
    """
    from pipeline.app.cli.output_checks import check_outputs

    checked, problems = 0, 0
    for name, problem in check_outputs(root):
        checked += 1
        if problem:
            problems += 1
            typer.echo(f"{name}: {problem}")
    typer.echo(f"{checked} checks, {problems} problems")
    if problems:
        raise SystemExit(1)


def _texts(given: str) -> Iterator[str]:
    """What `--text` says: one text, or one a line of standard input. Raises ParameterError where there is none."""
    from pipeline.artifacts.texts import clean_text

    lines = filter(None, map(clean_text, sys.stdin.buffer)) if given == "-" else iter([given])
    first = next(lines, None)
    if first is None:
        raise ParameterError("--text -: standard input has no text")
    yield first
    yield from lines


def _print_answer(request: Request, answer: Answer, as_json: bool) -> None:
    from rich.console import Console

    from pipeline.app.search import results

    if as_json:
        typer.echo(json.dumps(results.as_json(request, answer), ensure_ascii=False))
    else:
        Console().print(results.as_table(request, answer))


def main() -> None:
    """The program `cir`."""
    run_one_command()
    report_errors()(check_not_empty)(arguments=sys.argv[1:])
    app()


if __name__ == "__main__":
    main()

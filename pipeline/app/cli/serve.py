"""`cir serve`: the search as an HTTP API."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer
from typer import Option

from pipeline.app.cli import options
from pipeline.app.cli.project import check_folder, set_up
from pipeline.app.errors import report_errors
from pipeline.config import ParameterError

app = typer.Typer()


@app.command(rich_help_panel="Search images")
@report_errors()
def serve(  # noqa: PLR0913 - one argument an option
    gallery: options.GalleryName = "",
    host: options.Host = "127.0.0.1",
    port: options.Port = 8000,
    allow_origin: Annotated[
        list[str] | None,
        Option(help="A web page's origin that may call, such as https://example.org; may be repeated. Default: none."),
    ] = None,
    timeout: Annotated[float, Option(min=0.1, max=3600, help="Seconds from a request to its answer.")] = 30.0,
    page: Annotated[bool, Option(help="Serve the page of `cir demo` at /demo too.")] = True,
    milvus: Annotated[
        str,
        Option(
            envvar="CIR_MILVUS",
            help="Search the library in Milvus: its address, such as http://localhost:19530, or a file. Default: as "
            "the parameters' `index` says.",
        ),
    ] = "",
    describer: options.DescriberName = "",
    threads: options.Threads = 1,
    params: options.ParamsPath = options.PARAMS_FILE,
) -> None:
    """Serve the search as an HTTP API, described at /docs, with the page at /demo.

    Where CIR_API_KEY is in the environment, every request needs that key.
    """
    from pipeline.app.search.galleries import BenchmarkGallery, open_gallery
    from pipeline.app.service.settings import settings_of

    check_folder(params)
    settings = settings_of(host, allow_origin or (), timeout, page)
    opened = open_gallery(gallery or None)
    if milvus and isinstance(opened, BenchmarkGallery):
        raise ParameterError(f"milvus: {opened.name} is a benchmark, which is searched where `dvc repro` indexed it")
    try:
        from pipeline.app.service.server import serve
    except ImportError as error:
        raise ParameterError(f"{error.name} is missing; `pip install '.[serve]'` installs it") from None
    from pipeline.app.search.searcher import Searcher  # which loads torch

    loaded = set_up(params, threads)
    if milvus:
        loaded = replace(loaded, index=replace(loaded.index, kind="milvus", uri=milvus, storage="float32"))
    serve(Searcher(loaded, opened, describer=describer), host, port, settings)

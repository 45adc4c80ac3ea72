"""`cir export`: trained models in the layout of a hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from pipeline.app.cli import options
from pipeline.app.cli.project import check_folder
from pipeline.app.errors import report_errors
from pipeline.config import ParameterError, load_params

app = typer.Typer()


@app.command(rich_help_panel="Inspect the project")
@report_errors()
def export(
    out: Annotated[Path, typer.Argument(help="The folder that gets a folder for each model.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="prior, control-adapter, decoder or a DiffComp variant; may be repeated. Default: all."),
    ] = None,
    licence: Annotated[str, typer.Option("--license", help="Of the weights, as hubs name it: apache-2.0.")] = "other",
    params: options.ParamsPath = options.PARAMS_FILE,
) -> None:
    """Write trained models with their cards, in the layout of a hub's repositories.

    `hf upload TEAM/NAME FOLDER` publishes one.
    """
    check_folder(params)
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise ParameterError(f"--license: {licence!r} is no name that hubs know, such as apache-2.0, mit or other")
    from pipeline.app.release.export import export  # which loads torch
    from pipeline.app.release.models import chosen

    loaded = load_params(params)
    for folder in export(chosen(model or [], loaded), out, loaded, licence):
        typer.echo(folder)

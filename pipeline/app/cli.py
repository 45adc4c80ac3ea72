"""`cir`: the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.app import commands
from pipeline.app.errors import clear_errors
from pipeline.app.score import score, submit
from pipeline.app.verify import verify
from pipeline.config import load_profile

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def cir() -> None:
    """Zero-shot composed image retrieval: Fusion-Diff and DiffComp."""


@app.command()
@clear_errors()
def info(
    profile: Annotated[str, typer.Option(help="offline, smoke or paper.")] = "offline",
    conf: Annotated[Path, typer.Option(help="The folder of the profiles.")] = Path("conf"),
) -> None:
    """Print the sizes and parameter counts of every model of a profile, as JSON."""
    from pipeline.app.models import describe_models

    typer.echo(json.dumps(describe_models(load_profile(profile, conf)), indent=2))


app.command()(score)
app.command()(submit)
app.command()(verify)
app.command()(commands.index)
app.command()(commands.search)
app.command()(commands.demo)


if __name__ == "__main__":
    app()

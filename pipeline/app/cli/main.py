"""`cir`: the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.app.cli import commands
from pipeline.app.cli.verify import verify
from pipeline.app.scoring.commands import score, submit
from pipeline.config import load_profile
from pipeline.errors import report_user_errors

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def cir() -> None:
    """Zero-shot composed image retrieval: Fusion-Diff and DiffComp."""


@app.command()
@report_user_errors()
def info(
    profile: Annotated[str, typer.Option(help="offline, smoke or paper.")] = "offline",
    conf: Annotated[Path, typer.Option(help="The folder of the profiles.")] = Path("conf"),
) -> None:
    """Print the sizes and parameter counts of every model of a profile, as JSON."""
    from pipeline.app.cli.model_sizes import describe_models

    typer.echo(json.dumps(describe_models(load_profile(profile, conf)), indent=2))


app.command()(score)
app.command()(submit)
app.command()(verify)
app.command()(commands.index)
app.command()(commands.search)
app.command()(commands.demo)


if __name__ == "__main__":
    app()

"""ablate: tables and curves of `ablations/tables.yaml` -> reports/ablations/<table>.json."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from omegaconf import OmegaConf

from pipeline.config import load_params
from pipeline.errors import report_user_errors
from pipeline.experiments.ablation.run import FOLDER, run_tables
from pipeline.experiments.ablation.tables import TABLES, read_tables

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@report_user_errors()
def main(
    names: Annotated[list[str], typer.Argument(metavar="TABLE...", help="Which; `all` for every one.")],
    jobs: Annotated[int, typer.Option(help="Cells trained at a time, each with runtime.threads threads.", min=1)] = 1,
    recipe: Annotated[list[str], typer.Option("--set", metavar="NAME=VALUE", help="Change ablations.recipe.")] = [],  # noqa: B006
    tables: Annotated[Path, typer.Option(help="The tables' definitions.")] = TABLES,
    out: Annotated[
        Path, typer.Option(help="Where a table's results are kept; what is there already is not trained again.")
    ] = FOLDER,
) -> None:
    """Train and score the configurations of one or more tables; go on where an earlier run was cut off."""
    params, defined = load_params(), read_tables(tables)
    changes: Any = OmegaConf.to_container(OmegaConf.from_dotlist(recipe))
    ablations = dataclasses.replace(params.ablations, recipe={**params.ablations.recipe, **changes})
    params = dataclasses.replace(params, ablations=ablations)
    run_tables(list(defined) if "all" in names else names, defined, params, out, jobs)


if __name__ == "__main__":
    app()

"""`ablations/tables.yaml`: which configurations make up which table, and what the paper prints for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import DiffCompParams, ParameterError, Params, with_overrides

TABLES = Path("ablations/tables.yaml")


@dataclass
class Row:
    """One line of a table, or one point of a curve."""

    label: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    """What it changes of `diffcomp`."""
    paper: dict[str, float] = field(default_factory=dict)
    """Benchmark and metric -> the paper's figure."""


@dataclass
class Table:
    """A table of named rows, or (with `parameter` and `values`) a curve over one parameter."""

    title: str = ""
    source: str = ""
    """Where the paper has it."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Setting -> what it changes beside; every row is run in each. None: one without a name."""
    full: str = ""
    """The row that is the full model."""
    rows: dict[str, Row] = field(default_factory=dict)
    parameter: str = ""
    values: list[float] = field(default_factory=list)
    peak: float | None = None
    """Where the paper's curve is highest."""


@dataclass(frozen=True)
class Cell:
    """One configuration and seed: what is trained once."""

    table: str
    row: str
    setting: str
    seed: int
    variant: DiffCompParams


def read_tables(path: str | Path = TABLES) -> dict[str, Table]:
    """Name -> table. Raises ParameterError naming an entry that is unknown, ill-typed or empty."""
    path = Path(path)
    if not path.is_file():
        raise ParameterError(f"{path}: no such file")
    tables: dict[str, Table] = {}
    defined: Any = OmegaConf.to_container(OmegaConf.load(path))
    for name, values in defined.items():
        try:
            table: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Table), values))
        except OmegaConfBaseException as error:
            raise ParameterError(
                f"{path}: {name}.{error.full_key or error.key or '?'}: {str(error).splitlines()[0]}"
            ) from None
        table.settings = table.settings or {"": {}}
        if table.parameter:
            table.rows = {f"{value:g}": Row(f"{value:g}", {table.parameter: value}) for value in table.values}
        if not table.rows or (table.full and table.full not in table.rows):
            raise ParameterError(f"{path}: {name}: no rows, or {table.full!r} is none of them")
        tables[name] = table
    return tables


def cells_of(name: str, tables: dict[str, Table], params: Params) -> list[Cell]:
    """Every cell of one table, row by row. Raises ParameterError naming the table, or the row whose change is wrong."""
    if name not in tables:
        raise ParameterError(f"table {name!r} is not one of {', '.join(tables)}")
    return list(_cells(name, tables[name], params))


def recipe(params: Params) -> DiffCompParams:
    """What all cells share: `diffcomp` under `ablations.recipe`."""
    return with_overrides(params.diffcomp, params.ablations.recipe, "ablations.recipe")


def _cells(name: str, table: Table, params: Params) -> Iterator[Cell]:
    base = recipe(params)
    for row_name, row in table.rows.items():
        for setting, beside in table.settings.items():
            variant = with_overrides(base, {**beside, **row.changes}, f"{name}.{row_name}")
            variant.check_grid()
            for seed in params.ablations.seeds:
                yield Cell(name, row_name, setting, seed, variant)

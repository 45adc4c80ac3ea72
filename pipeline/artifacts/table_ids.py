"""No id comes twice in a table: checked for every table where it is written."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

from pipeline.artifacts.ids import UniqueIds

ROWS = 4_096
"""So many ids are in memory at once."""


class TableIds:
    """Checks the ids of a table's rows as they are written.

    The first column holds them. Tables of what several methods made have one row for each id and `method`. A table
    whose first column is none of ids is not checked.

    Args:
        schema: The table's.
        written: Reads these columns of all rows back that were written so far, finished shards of an earlier run among
            them. It is asked with the first rows, and again when a repetition is suspected.
    """

    def __init__(self, schema: pa.Schema, written: Callable[[list[str]], Iterable[pa.Table]]):
        names = schema.names
        has_ids = bool(names) and re.fullmatch(r"(\w+_)?id", names[0]) is not None
        self._columns = [names[0], *(name for name in names if name == "method")] if has_ids else []
        self._written = written
        self._unique: UniqueIds | None = None
        self._checked = schema.empty_table()
        """The front of the table that is being checked."""

    def check(self, table: pa.Table) -> None:
        """Check the rows that are written next.

        Raises:
            IdError: An id comes twice. Names it and both rows, which count from 0.
        """
        if not self._columns:
            return
        if self._unique is None:
            self._unique = UniqueIds(" and ".join(self._columns), self._written_ids)
            for finished in self._written(self._columns):
                for ids in self._ids(finished):
                    self._unique.check(ids)
        for number, ids in enumerate(self._ids(table)):
            self._checked = table.slice(0, number * ROWS)
            self._unique.check(ids)
        self._checked = self._checked.slice(0, 0)

    def forget(self) -> None:
        """Rows that were written are gone: those that are left are read back with the next ones."""
        self._unique = None

    def _written_ids(self) -> Iterator[str]:
        for table in itertools.chain(self._written(self._columns), [self._checked]):
            yield from itertools.chain.from_iterable(self._ids(table))

    def _ids(self, table: pa.Table) -> Iterator[list[str]]:
        """What tells rows apart, each as one text, `ROWS` of them at a time."""
        for start in range(0, table.num_rows, ROWS):
            values = [table[column].slice(start, ROWS).to_pylist() for column in self._columns]
            yield [", ".join(map(str, row)) for row in zip(*values, strict=True)]

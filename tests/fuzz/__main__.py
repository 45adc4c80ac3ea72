"""Damaged outside data for every reader: whatever is wrong must end in a named error.

    python -m tests.fuzz --cases 10000 --seed 7

prints the seed and a summary as JSON. Every crash is printed with the smallest case that shows it, and the status is 1.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import textwrap
import traceback
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from hypothesis import HealthCheck, Phase, given, seed, settings

from pipeline.errors import is_user_error
from tests.fuzz.readers import Reader, readers


def fuzz(reader: Reader, cases: int, number: int | None = None, counted: Counter | None = None) -> None:
    """Let a reader have `cases` cases. Raises what is no named error, for the smallest case that hypothesis finds."""
    counted = Counter() if counted is None else counted

    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        derandomize=number is None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(case=reader.cases)
    def survives(case) -> None:
        counted["cases"] += 1
        try:
            reader.read(case)
        except Exception as error:
            if not is_user_error(error) or not str(error).strip():
                raise
            counted["named errors"] += 1

    (survives if number is None else seed(number)(survives))()


def main(
    cases: Annotated[int, typer.Option(help="How many, over all readers alike.")] = 10_000,
    seed: Annotated[int | None, typer.Option(help="Decides all; default: a new one, printed.")] = None,
    reader: Annotated[list[str] | None, typer.Option(help="Only this one (repeatable).")] = None,
) -> None:
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    print(f"seed {seed}", flush=True)
    crashes, total = [], Counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        every = readers(Path(folder))
        for name in reader or every:
            counted = Counter()
            try:
                fuzz(every[name], -(-cases // len(reader or every)), seed, counted)
            except Exception as error:
                crashes.append(name)
                for one in error.exceptions if isinstance(error, ExceptionGroup) else (error,):
                    lines = traceback.format_exception(one, limit=-3)
                    print(f"CRASH {name}\n{textwrap.shorten(repr(one), 300)}\n{''.join(lines)[:1500]}", flush=True)
            total += counted
            print(f"{name}: {counted['cases']} cases, {counted['named errors']} named errors", flush=True)
    print(json.dumps({"seed": seed, "readers": len(reader or every), **total, "crashes": crashes}))
    sys.exit(1 if crashes else 0)


if __name__ == "__main__":
    typer.run(main)

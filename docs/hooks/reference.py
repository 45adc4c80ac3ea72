"""The API reference: a page of docs/api shows every module of the room it is named after; the index lists them all."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Append the modules of the room to a page `api/<room>.md`, and a table of all modules to `api/index.md`."""
    place = Path(page.file.src_uri)
    if place.parent.name != "api":
        return markdown
    if place.stem == "index":
        return "\n".join([markdown.rstrip(), "", "| file | what it holds |", "| --- | --- |", *_rows()]) + "\n"
    return "\n\n".join([markdown.rstrip(), *_blocks(ROOT / "pipeline" / place.stem)]) + "\n"


def _blocks(room: Path) -> Iterator[str]:
    """The room's own docstring, then what mkdocstrings makes of each module; a package's re-exports are left out."""
    if not room.is_dir():
        yield f"::: pipeline.{room.name}"
        return
    yield _docstring(room / "__init__.py")
    for path in sorted(room.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.name != "__init__.py":
            yield f"::: {'.'.join(parts)}"


def _rows() -> Iterator[str]:
    """Every module with the first sentence of its docstring, in the order of their names."""
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.name != "__init__.py":
            about = " ".join(_docstring(path).split("\n\n")[0].split()).replace("|", "\\|")
            yield f"| [`{'/'.join(parts[1:])}.py`]({parts[1]}.md#{'.'.join(parts)}) | {about} |"


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""

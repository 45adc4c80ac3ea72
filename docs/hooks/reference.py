"""The API reference: a page of docs/api shows every module of the room that it is named after."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Append the modules of the room to a page `api/<room>.md`."""
    place = Path(page.file.src_uri)
    if place.parent.name != "api" or place.stem == "index":
        return markdown
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


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""

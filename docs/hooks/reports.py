"""Figures of `reports/figures` in the site: pages name them by their path in the repository, as GitHub shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

FIGURES = "reports/figures"
COPIES = "images/reports"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the report's figures to the site's files."""
    root = Path(config.config_file_path or "mkdocs.yml").parent
    for path in sorted((root / FIGURES).glob("*.png")):
        files.append(File.generated(config, f"{COPIES}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Point to the copies, from however deep in docs/ a page stands."""
    up = "../" * page.file.src_uri.count("/")
    return markdown.replace(f"](../{up}{FIGURES}/", f"]({up}{COPIES}/")

"""The site builds without a warning, needs no network to be read, and shows every module."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not all(find_spec(name) for name in ("mkdocs", "material", "mkdocstrings")),
    reason="the docs extra is not installed",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return out


def test_nothing_is_fetched(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|link|img)[^>]*?(?:src|href)="(?:https?:)?//[^"]+"', text)
        assert [tag for tag in fetched if 'rel="canonical"' not in tag] == [], page.name


def test_every_module_has_its_place_in_the_reference(site):
    shown = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    modules = [path for path in (ROOT / "pipeline").rglob("*.py") if path.name != "__init__.py"]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules]
    assert [name for name in names if f'id="{name}"' not in shown] == []


def test_every_room_has_a_page():
    rooms = {
        path.stem for path in (ROOT / "pipeline").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    pages = {path.stem for path in (ROOT / "docs/api").glob("*.md")}
    assert pages - {"index"} == rooms - {"__init__"}


def test_equations_are_drawn(site):
    page = (site / "methods/fusion-diff.html").read_text(encoding="utf-8")
    assert page.count('class="equation"') >= 12 and 'class="arithmatex"' not in page
    assert 'aria-label="' in page


def test_figures_of_the_report_are_shown(site):
    assert (site / "images/reports/queries.png").read_bytes() == (ROOT / "reports/figures/queries.png").read_bytes()
    assert "images/reports/queries.png" in (site / "results.html").read_text(encoding="utf-8")
    assert 'src="../images/reports/imagined.png"' in (site / "methods/decoder.html").read_text(encoding="utf-8")

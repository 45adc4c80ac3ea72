"""Draw `docs/images/stages.svg` from the graph in README.md: python docs/figures/stages.py

The graph leaves out what other edges imply. `tests/docs` holds it against dvc.yaml.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs/images/stages.svg"
PLACES = {
    "check_parameters": (0, 0),
    "prepare": (0, 1),
    "backbones": (0, 2),
    "extract_text": (1, 1),
    "embed_fused": (2, 0),
    "train_decoder": (3, 1),
    "train_prior": (3, 0),
    "train_control_adapter": (4, 0),
    "distill_prior": (4, 1),
    "train_diffcomp": (2, 2),
    "train_peers": (2, 1),
    "embed_gallery": (3, 2),
    "build_index": (4, 2),
    "retrieve": (5, 0),
    "rerank": (5, 1),
    "report": (5, 2),
}
"""Stage -> column and row."""
GROUPS = {
    "#d9481f": ("embed_fused", "train_decoder", "train_prior", "train_control_adapter", "distill_prior"),
    "#6a4be0": ("train_diffcomp",),
    "#8a9a5b": ("train_peers",),
}
"""Colour -> the stages of one method; the others are grey."""
COLUMN, ROW, WIDTH, HEIGHT, MARGIN = 190, 84, 160, 38, 26
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" \
aria-label="The stages and their order" font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="14">
<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0 0L10 5L0 10z" fill="#5b6475"/></marker></defs>
<rect x="1" y="1" width="{w2}" height="{h2}" rx="16" fill="#fdfcfa" stroke="#d9d6d0"/>"""


def edges() -> list[tuple[str, str]]:
    """The edges of README's graph."""
    graph = re.search(r"```mermaid\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    chains = [line.split(" --> ") for line in (graph[1] if graph else "").splitlines()]
    return [(start.strip(), end.strip()) for chain in chains for start, end in pairwise(chain)]


def drawing() -> str:
    """The whole SVG."""
    width, height = 2 * MARGIN + 5 * COLUMN + WIDTH, 2 * MARGIN + 2 * ROW + HEIGHT
    parts = [HEAD.format(w=width, h=height, w2=width - 2, h2=height - 2)]
    parts += [_arrow(start, end) for start, end in edges()]
    parts += [_box(stage) for stage in PLACES]
    return "\n".join([*parts, "</svg>", ""])


def _corner(stage: str) -> tuple[int, int]:
    column, row = PLACES[stage]
    return MARGIN + column * COLUMN, MARGIN + row * ROW


def _box(stage: str) -> str:
    x, y = _corner(stage)
    colour = next((colour for colour, stages in GROUPS.items() if stage in stages), "#5b6475")
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8" '
        f'fill="#ffffff" stroke="{colour}" stroke-width="1.5"/>'
        f'<text x="{x + WIDTH // 2}" y="{y + 24}" text-anchor="middle" fill="#1d2330">{stage}</text>'
    )


def _arrow(start: str, end: str) -> str:
    """From the right side to the left one, or downwards within a column."""
    (x1, y1), (x2, y2) = _corner(start), _corner(end)
    if x1 == x2:
        path = f"M{x1 + WIDTH // 2} {y1 + HEIGHT}V{y2 - 1}"
    else:
        y1, y2, middle = y1 + HEIGHT // 2, y2 + HEIGHT // 2, (x1 + WIDTH + x2) // 2
        path = f"M{x1 + WIDTH} {y1}C{middle} {y1} {middle} {y2} {x2 - 1} {y2}"
    return f'<path d="{path}" fill="none" stroke="#5b6475" stroke-width="1.5" marker-end="url(#tip)"/>'


if __name__ == "__main__":
    OUT.write_text(drawing(), encoding="utf-8")

"""Equations without a script from the network: `$...$` and `$$...$$` become SVG when the site is built.

`pymdownx.arithmatex` finds the equations, and Matplotlib's mathtext draws them. The LaTeX source stays as the
label for screen readers. GitHub shows the same sources as equations.
"""

from __future__ import annotations

import html
import re
from functools import cache
from typing import Any

from matplotlib import rc_context
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextPath, TextToPath

EM = 100.0
"""Units of the drawing in one em of the text around it."""
EQUATION = re.compile(r'<(span|div) class="arithmatex">(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])</\1>', re.DOTALL)
COMMANDS = {Path.MOVETO: ("M", 1), Path.LINETO: ("L", 1), Path.CURVE3: ("Q", 2), Path.CURVE4: ("C", 3)}
"""Path code -> SVG's letter, and how many points it takes."""


def on_page_content(content: str, **_: Any) -> str:
    """Replace what arithmatex has marked. A formula that mathtext cannot read fails the build."""
    return EQUATION.sub(lambda found: _element(found[1], html.unescape(found[2])), content)


def _element(tag: str, source: str) -> str:
    return f'<{tag} class="{"equation" if tag == "div" else "formula"}">{drawn(" ".join(source.split()))}</{tag}>'


@cache
def drawn(source: str) -> str:
    """One formula as an SVG element, in the colour and size of the text around it.

    Args:
        source: LaTeX, as far as Matplotlib's mathtext knows it.

    Returns:
        The element, with the source as its label.

    Raises:
        ValueError: The formula cannot be drawn.
    """
    font = FontProperties(size=EM)
    with rc_context({"mathtext.fontset": "cm"}):
        try:
            width, height, depth = TextToPath().get_text_width_height_descent(f"${source}$", font, ismath=True)
            path = TextPath((0, 0), f"${source}$", size=EM, usetex=False)
        except ValueError as error:
            raise ValueError(f"cannot draw the formula {source}: {error}") from error
    margin = EM / 50
    box = f"{-margin:g} {-height + depth - margin:.1f} {width + 2 * margin:.1f} {height + 2 * margin:.1f}"
    style = (
        f"width:{(width + 2 * margin) / EM:.3f}em;height:{(height + 2 * margin) / EM:.3f}em;"
        f"vertical-align:{-(depth + margin) / EM:.3f}em"
    )
    label = html.escape(source, quote=True)
    return (
        f'<svg viewBox="{box}" style="{style}" role="img" aria-label="{label}" fill="currentColor">'
        f'<path d="{_svg_path(path)}"/></svg>'
    )


def _svg_path(path: Path) -> str:
    """The outline, upside down, as SVG's y axis is."""
    parts = []
    for points, code in path.iter_segments(curves=True, simplify=False):
        if code == Path.CLOSEPOLY:
            parts.append("Z")
        else:
            letter, count = COMMANDS[code]
            parts.append(letter + " ".join(f"{x:.1f} {-y:.1f}" for x, y in points.reshape(count, 2)))
    return "".join(parts)

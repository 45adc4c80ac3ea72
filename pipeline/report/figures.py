"""Strips of images: sample queries, which the README shows, and what DiffComp sees."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.diffcomp.explain import heat_map
from pipeline.report.diffcomp_view import ImageMap
from pipeline.report.metrics import RankedQueries
from pipeline.report.names import describe

IMAGE_SIDE, GAP, MARGIN, TEXT_WIDTH = 72, 8, 20, 250
SHOWN = 5
BAR = (120, 10)
"""Width and height of the scale of colours."""
INK, FAINT, TARGET, BACKGROUND = "#1d1f23", "#6b7078", "#1a9c4b", "#ffffff"
SCALE = 2
"""Drawn at twice its nominal size, for sharp text."""


def query_strip(answers: RankedQueries, rows: list[int], methods: list[str], images: dict[str, Image.Image]) -> bytes:
    """Reference, text, and each method's first five answers, targets framed in green, as PNG."""
    block = SHOWN * (IMAGE_SIDE + GAP)
    width = MARGIN * 2 + IMAGE_SIDE + GAP * 2 + TEXT_WIDTH + len(methods) * (block + GAP * 2)
    height = MARGIN * 2 + 26 + len(rows) * (IMAGE_SIDE + GAP * 2)
    canvas = Image.new("RGB", (width * SCALE, height * SCALE), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    left = MARGIN + IMAGE_SIDE + GAP * 2 + TEXT_WIDTH
    _text(draw, (MARGIN, MARGIN), "Reference", FAINT, 12)
    _text(draw, (MARGIN + IMAGE_SIDE + GAP * 2, MARGIN), "Modification", FAINT, 12)
    for number, method in enumerate(methods):
        _text(draw, (left + number * (block + GAP * 2), MARGIN), f"{describe(method).label}: first {SHOWN}", FAINT, 12)
    for line, row in enumerate(rows):
        query, top = answers.queries[row], MARGIN + 26 + line * (IMAGE_SIDE + GAP * 2)
        _image(canvas, draw, images[query.reference_id], (MARGIN, top), False)
        text = _wrapped(draw, query.text, TEXT_WIDTH - GAP * 2, 14, 3)
        _text(draw, (MARGIN + IMAGE_SIDE + GAP * 2, top + IMAGE_SIDE // 2 - 9 * len(text)), "\n".join(text), INK, 14)
        for number, method in enumerate(methods):
            for rank, name in enumerate(answers.ranked(method)[row][:SHOWN]):
                corner = (left + number * (block + GAP * 2) + rank * (IMAGE_SIDE + GAP), top)
                _image(canvas, draw, images[name], corner, name in query.target_ids)
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG")
    return buffer.getvalue()


def map_strip(
    seen: Sequence[ImageMap],
    ends: tuple[str, str],
    limits: tuple[float, float] | None = None,
    columns: int = 3,
) -> bytes:
    """Each image beside its map, the text below and the range of the values, under the scale of colours, as PNG.

    Args:
        seen: The images and their maps.
        ends: What the darkest and the brightest colour mean.
        limits: See `heat_map`.
        columns: Images a line.
    """
    width, height, above = 2 * IMAGE_SIDE + GAP + 30, IMAGE_SIDE + 58, MARGIN + 28
    lines = -(-len(seen) // columns)
    size = ((MARGIN * 2 + columns * width) * SCALE, (above + MARGIN + lines * height) * SCALE)
    canvas = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    _scale_of_colours(canvas, draw, ends)
    for number, one in enumerate(seen):
        left, top = MARGIN + number % columns * width, above + number // columns * height
        heat = heat_map(one.image, one.values, (IMAGE_SIDE - 12) * SCALE, limits)
        for place, image in ((left, one.image.convert("RGBA")), (left + IMAGE_SIDE + GAP, heat.convert("RGBA"))):
            _image(canvas, draw, image, (place, top), False)
        text = "\n".join(_wrapped(draw, one.text, width - 30, 11, 2))
        _text(draw, (left, top + IMAGE_SIDE + 3), text, INK, 11)
        _text(draw, (left, top + IMAGE_SIDE + 37), f"{one.values.min():.2f} to {one.values.max():.2f}", FAINT, 9)
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG")
    return buffer.getvalue()


def _scale_of_colours(canvas: Image.Image, draw: ImageDraw.ImageDraw, ends: tuple[str, str]) -> None:
    """The colours that a map has over white, between the words for both ends."""
    white = Image.new("RGB", (1, 1), "white")
    colours = heat_map(white, np.linspace(0, 1, BAR[0])[None], BAR[0] * SCALE).resize([side * SCALE for side in BAR])
    begin = MARGIN + round(draw.textlength(ends[0], font=_font(11)) / SCALE) + GAP
    _text(draw, (MARGIN, MARGIN), ends[0], FAINT, 11)
    canvas.paste(colours, (begin * SCALE, (MARGIN + 3) * SCALE))
    _text(draw, (begin + BAR[0] + GAP, MARGIN), ends[1], FAINT, 11)


@dataclass(frozen=True)
class Cell:
    """An image of a row, and what it is called."""

    label: str
    image: Image.Image
    target: bool = False


@dataclass(frozen=True)
class ImageRow:
    """Images beside a query's text."""

    text: str
    description: str
    cells: Sequence[Cell]


def image_rows(rows: Sequence[ImageRow]) -> bytes:
    """Each row's images under the names of the first row's, and its texts behind them, as PNG; targets are framed."""
    block, top = IMAGE_SIDE + GAP, MARGIN + 26
    left = MARGIN + len(rows[0].cells) * block
    size = ((left + TEXT_WIDTH + MARGIN) * SCALE, (top + len(rows) * (block + GAP) + MARGIN) * SCALE)
    canvas = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for number, cell in enumerate(rows[0].cells):
        _text(draw, (MARGIN + number * block, MARGIN), cell.label, FAINT, 10)
    for line, row in enumerate(rows):
        corner = top + line * (block + GAP)
        for number, cell in enumerate(row.cells):
            _image(canvas, draw, cell.image.convert("RGBA"), (MARGIN + number * block, corner), cell.target)
        _text(draw, (left, corner), "\n".join(_wrapped(draw, row.text, TEXT_WIDTH, 12, 2)), INK, 12)
        described = _wrapped(draw, row.description, TEXT_WIDTH, 11, 2)
        _text(draw, (left, corner + 38), "\n".join(described), FAINT, 11)
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG")
    return buffer.getvalue()


def _image(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, image: Image.Image, corner: tuple[int, int], target: bool
) -> None:
    left, top = (value * SCALE for value in corner)
    side, inner = IMAGE_SIDE * SCALE, (IMAGE_SIDE - 12) * SCALE
    outline, stroke = (TARGET, 3 * SCALE) if target else ("#e2e4e8", SCALE)
    draw.rounded_rectangle(
        (left, top, left + side - 1, top + side - 1), radius=8 * SCALE, outline=outline, width=stroke
    )
    factor = inner / max(image.size)
    small = image.resize(
        (max(1, round(image.width * factor)), max(1, round(image.height * factor))), Image.Resampling.LANCZOS
    )
    canvas.paste(small, (left + (side - small.width) // 2, top + (side - small.height) // 2), small)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries: the same glyphs on every machine."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size * SCALE)


def _text(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, colour: str, size: int) -> None:
    draw.multiline_text((corner[0] * SCALE, corner[1] * SCALE), text, fill=colour, font=_font(size), spacing=4 * SCALE)


def _wrapped(draw: ImageDraw.ImageDraw, text: str, width: int, size: int, lines: int) -> list[str]:
    """At most `lines` lines no wider than `width`, the last with an ellipsis where words are left over."""
    font, result = _font(size), [""]
    for word in text.split():
        longer = f"{result[-1]} {word}".strip()
        if draw.textlength(longer, font=font) <= width * SCALE or not result[-1]:
            result[-1] = longer
        elif len(result) < lines:
            result.append(word)
        else:
            result[-1] += " …"
            break
    return result

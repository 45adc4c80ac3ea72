"""Search results as a table in the terminal, as JSON, and as one HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipeline.app.search.answers import Answer, Hit
from pipeline.app.search.galleries import Gallery
from pipeline.app.search.names import with_name
from pipeline.app.search.requests import Request
from pipeline.artifacts import write_atomically

THUMBNAIL = 240
"""Longer side of the images in a page, in pixels."""


def as_table(request: Request, answer: Answer) -> Group:
    """One answer for the terminal.

    Args:
        request: What was searched for.
        answer: What was found.

    Returns:
        Ranks, scores, and names and ids of the images. Below stand how the target was described, and the time of each
        part.
    """
    notes = [] if answer.hits else ["no image passes the filter" if request.where else "nothing was found"]
    notes += [f'described as "{description}"' for description in answer.descriptions]
    notes.append(", ".join(f"{part} {1000 * seconds:.0f} ms" for part, seconds in answer.seconds.items()))
    table = Table()
    table.add_column("#", justify="right")
    table.add_column("score", justify="right")
    table.add_column("image", overflow="fold")
    for rank, hit in enumerate(answer.hits, start=1):
        table.add_row(str(rank), f"{hit.score:.4f}", Text(with_name(hit.image_id, hit.name)))
    # Not the table's title and caption, which would be broken at the width of a narrow table.
    return Group(Text(f"{answer.method}: {request.text}", "italic"), table, Text("\n".join(notes), "dim italic"))


def as_json(request: Request, answer: Answer) -> dict[str, Any]:
    """One answer as plain values.

    Args:
        request: What was searched for.
        answer: What was found.

    Returns:
        Method, text, negative text, inferred descriptions, seconds by part, and `hits` from rank 1 on.
    """
    return {
        "method": answer.method,
        "text": request.text,
        "negative": request.controls.negative,
        "descriptions": answer.descriptions,
        "seconds": {part: round(seconds, 4) for part, seconds in answer.seconds.items()},
        "hits": [
            {"rank": rank, "id": hit.image_id, "name": hit.name, "score": round(hit.score, 6)}
            for rank, hit in enumerate(answer.hits, start=1)
        ],
    }


Imagine = Callable[[Answer], list[Image.Image]]
"""What was searched, as images: see `Searcher.decoded`."""


def as_html(found: list[tuple[Request, Answer]], gallery: Gallery, imagine: Imagine | None = None) -> str:
    """Several answers as one page. Images are embedded, texts are escaped, and nothing is loaded from a network.

    Args:
        found: Requests with their answers, in the order of the page.
        gallery: Where the images of the results come from.
        imagine: Shows what was searched; None: it is not shown.

    Returns:
        The HTML document.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    searches = [
        {
            "request": request,
            "answer": answer,
            "reference": data_uri(request.image),
            "imagined": [data_uri(image) for image in (imagine(answer) if imagine else ())],
            "hits": [_html_hit(rank, hit, gallery) for rank, hit in enumerate(answer.hits, start=1)],
        }
        for request, answer in found
    ]
    return environment.get_template("search.html").render(searches=searches, gallery=gallery.name)


def _html_hit(rank: int, hit: Hit, gallery: Gallery) -> dict[str, Any]:
    shown = gallery.shown(hit.image_id)
    return {
        "rank": rank,
        "id": hit.image_id,
        "name": hit.name,
        "score": hit.score,
        "image": data_uri(shown.image),
        "is_gone": shown.is_gone,
    }


def write_html(
    path: Path, found: list[tuple[Request, Answer]], gallery: Gallery, imagine: Imagine | None = None
) -> None:
    """Write the page of `as_html` to a file, which is replaced only when the page is complete."""
    with write_atomically(path) as unfinished:
        unfinished.write_text(as_html(found, gallery, imagine), encoding="utf-8")


def thumbnail(image: Image.Image, side: int = THUMBNAIL) -> Image.Image:
    """A copy of an image, at most `side` pixels long. A smaller image keeps its size."""
    copy = image.copy()
    copy.thumbnail((side, side))
    return copy


def data_uri(image: Image.Image) -> str:
    """An image's thumbnail as a `data:` address for HTML."""
    buffer = io.BytesIO()
    thumbnail(image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

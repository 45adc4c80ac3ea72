"""HTML fragments of the demo page. Every text from a visitor, a file or a model is escaped here."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from html import escape

from pipeline.app.search.nearest_captions import Caption
from pipeline.errors import as_one_line, is_user_error

logger = logging.getLogger(__name__)


def alert(text: str) -> str:
    """A message about something that the visitor can mend."""
    return f'<div class="cir-message" role="alert">{escape(text)}</div>'


def error_alert(error: Exception) -> str:
    """A caught error as an alert: its message where the visitor can mend it, else a general one and a log entry.

    Args:
        error: The exception that is being handled.

    Returns:
        HTML that shows nothing of an internal error.
    """
    if is_user_error(error):
        return alert(as_one_line(error))
    logger.error("a request failed", exc_info=error)
    return alert("An internal error occurred. Your input is not the cause. The server's log has the details.")


def query_line(reference: str, text: str, negative: str, address: str) -> str:
    """What was searched for, to stand above the results.

    Args:
        reference: The reference image as a `data:` address.
        text: The modification.
        negative: What the results should not be; may be empty.
        address: Of the page with this search, relative to the page; "" where no address can say it.
    """
    without = f" <span>without {escape(negative.strip())}</span>" if negative.strip() else ""
    link = f' <a href="{escape(address)}" title="The address of this search">link</a>' if address else ""
    image = f'<img src="{escape(reference)}" alt="the reference">'
    return f'<p class="cir-query">{image} <span>“{escape(text.strip())}”{without}{link}</span></p>'


def panel_heading(label: str, seconds: dict[str, float], region_ignored: bool = False) -> str:
    """The heading of one method's results.

    Args:
        label: The method's label.
        seconds: Part (describe, sample, search) -> time.
        region_ignored: Whether a region was painted that the method does not take.

    Returns:
        HTML with the label, the time of each part and their sum.
    """
    times = [
        *(f"{part} {1000 * time:.0f} ms" for part, time in seconds.items()),
        f"total {sum(seconds.values()):.2f} s",
    ]
    line = " · ".join(f'<span class="cir-whole">{time}</span>' for time in times)
    note = "<br>This method takes no region; the painted one was ignored." if region_ignored else ""
    return f'<h3>{escape(label)}</h3><p class="cir-quiet">{line}{note}</p>'


def descriptions_list(descriptions: Iterable[str]) -> str:
    """The target descriptions that the language model inferred; nothing for a method without any."""
    quotes = "".join(f"<blockquote>{escape(text)}</blockquote>" for text in descriptions)
    return f"<p>Target description by the language model:</p>{quotes}" if quotes else ""


def imagined_images(images: Iterable[str]) -> str:
    """What was searched as images, `data:` addresses; nothing without any."""
    shown = "".join(f'<img src="{escape(image)}" alt="what the model imagines" width="96">' for image in images)
    return f"<p>What the model imagines:</p><p>{shown}</p>" if shown else ""


def captions_table(captions: Iterable[Caption], searched: str) -> str:
    """Training captions with their cosines to what was searched, which `searched` names."""
    rows = "".join(f"<tr><td>{one.cosine:.3f}</td><td>{escape(one.text)}</td></tr>" for one in captions)
    return f"<p>Training captions nearest to the {escape(searched)}:</p><table>{rows}</table>"


def quiet(text: str) -> str:
    """A side remark."""
    return f'<p class="cir-quiet">{escape(text)}</p>'

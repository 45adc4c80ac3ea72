"""What the demo page answers: the events of `pipeline.app.page.layout` as plain functions, without its layout.

Nothing that a visitor sends may end the server or be taken for markup: refusals come back as a
sentence, and every text in HTML is escaped here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.app.search.requests import Request, RequestError, painted
from pipeline.app.search.results import thumbnail
from pipeline.app.search.searcher import Answer, Searcher, both
from pipeline.app.search.user_images import UserImageError, read_user_image
from pipeline.diffcomp.explain import heat_map
from pipeline.errors import is_user_error
from pipeline.query.methods import FUSION_DIFF_METHODS, Controls
from pipeline.report.names import describe

logger = logging.getLogger(__name__)

NONE = "none"
"""In the place of the second method."""
PICKS = 24
"""Images that the gallery offers at once."""
EDITOR_SIDE = 480
"""The reference is shown so large where a region is painted."""


@dataclass
class Panel:
    """One method's answers."""

    shown: bool = False
    title: str = ""
    pictures: list[tuple[Image.Image, str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    heat: Image.Image | None = None
    why: str = ""


@dataclass
class Results:
    """What one press of the button shows."""

    message: str
    panels: tuple[Panel, Panel]


class Answers:
    """Everything the page asks of a searcher."""

    def __init__(self, searcher: Searcher):
        self.searcher, self.gallery = searcher, searcher.gallery

    def search(self, form: dict[str, Any]) -> Results:
        """Both panels for the form's fields (see `pipeline.app.page.layout`); reference is a file's path."""
        found: list[Panel] = []

        def run() -> str:
            request = self._request(form)
            for method in dict.fromkeys(name for name in (form["method"], form["other"]) if name != NONE):
                found.append(
                    self._panel(
                        both(request, method, self.searcher.takes_region(method)), request.controls.region is not None
                    )
                )
            return ""

        message = friendly(run)
        panels = [] if message else found
        return Results(message, tuple([*panels, Panel(), Panel()][:2]))

    def _request(self, form: dict[str, Any]) -> Request:
        if not form["reference"]:
            raise RequestError("there is no reference image yet: upload one, or pick one from the gallery")
        try:
            reference = read_user_image(form["reference"])
        except UserImageError as error:
            raise RequestError(f"this reference cannot be used: {error}") from None
        # A scale that nobody moved is the parameter itself, which may give way: a negative text brings guidance where it is 0.
        guidance = None if form["guidance"] == self.searcher.params.retrieve.guidance_scale else form["guidance"]
        controls = Controls(
            (form["negative"] or "").strip(),
            region=region_of(form["region"], reference.size),
            guidance_scale=guidance,
            control_scale=form["control"],
            hypotheses=int(form["hypotheses"]),
        )
        return Request(
            reference,
            form["text"] or "",
            form["method"],
            int(form["top"]),
            form["concept"] or "",
            form["reference_id"] or None,
            controls,
        )

    def _panel(self, request: Request, painted: bool) -> Panel:
        answer = self.searcher.search(request)
        pictures = [
            (thumbnail(self.gallery.image(hit.image_id)), f"{rank} · {hit.score:.3f}")
            for rank, hit in enumerate(answer.hits, start=1)
        ]
        ignored = painted and request.controls.region is None
        panel = Panel(True, title(answer, ignored), pictures, [hit.image_id for hit in answer.hits])
        if self.searcher.takes_region(request.method):
            kept = self.searcher.kept(request)
            panel.heat = heat_map(request.image, kept)
            panel.why = (
                "<p>What stays of the reference: 1 - alpha of every super-patch, "
                f"from {kept.min():.2f} (dark) to {kept.max():.2f} (bright).</p>"
            )
        else:
            panel.why = self._why(answer)
        return panel

    def _why(self, answer: Answer) -> str:
        if answer.method not in FUSION_DIFF_METHODS:
            return '<p class="cir-quiet">A training-free row: one vector, nothing learned to show.</p>'
        parts = []
        if answer.descriptions:
            parts.append("<p>The target as the language model described it:</p>")
            parts += [f"<blockquote>{escape(text)}</blockquote>" for text in answer.descriptions]
        rows: list[str] = []
        problem = friendly(
            lambda: rows.extend(
                f"<tr><td>{caption.cosine:.3f}</td><td>{escape(caption.text)}</td></tr>"
                for caption in self.searcher.nearest_captions(answer)
            )
        )
        if problem:
            return "".join(parts) + problem
        what = "fused query" if answer.method == "fused_only" else "sampled target"
        return "".join(parts) + f"<p>Training captions nearest to the {what}:</p><table>{''.join(rows)}</table>"

    def reference(self, image_id: str) -> Image.Image:
        """A gallery image as the next reference. Raises ArtifactError for an id that is not of the gallery."""
        return self.gallery.image(image_id)

    def picks(self, words: str, page: int) -> tuple[list[tuple[Image.Image, str]], list[str]]:
        """Images to start from: those whose id has `words` in it, else some from all over the gallery."""
        ids = self.gallery.ids
        if words.strip():
            chosen = [image_id for image_id in ids if words.strip().casefold() in image_id.casefold()]
            start = (page * PICKS) % len(chosen) if chosen else 0
            chosen = chosen[start : start + PICKS]
        else:
            stride = max(1, len(ids) // PICKS)
            chosen = ids[page % stride :: stride][:PICKS]
        return [(thumbnail(self.gallery.image(image_id)), image_id) for image_id in chosen], chosen


def friendly(run: Callable[[], Any]) -> str:
    """Call it; what a person can mend comes back as HTML, what is our mistake goes to the log."""
    try:
        return run() or ""
    except Exception as error:
        if is_user_error(error):
            return f'<div class="cir-message" role="alert">{escape(" ".join(str(error).split()))}</div>'
        logger.exception("a request failed")
        return '<div class="cir-message" role="alert">Something went wrong here, not with your question. The log says what.</div>'


def title(answer: Answer, ignored_region: bool) -> str:
    """A panel's heading: the method, and the time by part."""
    parts = " · ".join(f"{part} {1000 * seconds:.0f} ms" for part, seconds in answer.seconds.items())
    total = f"{sum(answer.seconds.values()):.2f} s"
    note = "<br>The region means nothing to this method and was left out." if ignored_region else ""
    return f'<h3>{escape(describe(answer.method).label)}</h3><p class="cir-quiet">{parts} · together {total}{note}</p>'


def asked(text: str, negative: str) -> str:
    """What was asked, to stand above the answers."""
    without = f" <span>without {escape(negative.strip())}</span>" if negative and negative.strip() else ""
    return f'<p class="cir-asked">“{escape(text.strip())}”{without}</p>'


def editor_value(reference: Image.Image) -> dict[str, Any]:
    """The reference to paint on, at a size that a finger can paint."""
    scale = EDITOR_SIDE / max(reference.size)
    size = tuple(max(1, round(side * scale)) for side in reference.size)
    return {"background": reference.resize(size, Image.Resampling.BICUBIC), "layers": [], "composite": None}


def region_of(editor: dict[str, Any] | None, size: tuple[int, int]) -> Image.Image | None:
    """What is painted in the editor, as a region over a reference of `size`; None: nothing is."""
    layers = (editor or {}).get("layers") or []
    masks = [np.asarray(layer.convert("RGBA").resize(size, Image.Resampling.NEAREST))[..., 3] > 0 for layer in layers]
    mask = np.logical_or.reduce(masks) if masks else np.zeros(1, bool)
    return painted(mask) if mask.any() else None


def open_reference(path: str | Path | None) -> tuple[Image.Image | None, str]:
    """An upload as RGB, or why it is none."""
    if not path:
        return None, ""
    try:
        return read_user_image(path), ""
    except UserImageError as error:
        message = f"this reference cannot be used: {error}"
        return None, f'<div class="cir-message" role="alert">{escape(message)}</div>'

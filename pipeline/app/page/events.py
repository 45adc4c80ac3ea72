"""What the demo page does when a visitor acts, without its layout.

Nothing that a visitor sends may end the server or be taken for markup: what cannot be used comes
back as a sentence, and `pipeline.app.page.markup` escapes every text.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from pipeline.app.page.links import Link, address_of
from pipeline.app.page.markup import (
    alert,
    captions_table,
    descriptions_list,
    error_alert,
    imagined_images,
    panel_heading,
    query_line,
    quiet,
)
from pipeline.app.search.answers import Answer
from pipeline.app.search.examples import EXAMPLES, Example
from pipeline.app.search.galleries import SIDE
from pipeline.app.search.names import with_name
from pipeline.app.search.requests import Request, RequestError, region_of_mask
from pipeline.app.search.results import data_uri, thumbnail
from pipeline.app.search.searcher import Searcher, for_method
from pipeline.artifacts.decoding import ImageError, decode_file
from pipeline.diffcomp.explain import heat_map
from pipeline.query.interface import Controls
from pipeline.query.registry import find_method
from pipeline.retrieval.spaces import FUSED

NO_METHOD = "none"
"""The choice that leaves the second panel empty."""
SUGGESTIONS = 24
"""Gallery images that are offered as references at once."""
MAX_HISTORY = 50
"""Searches that a visitor can go back through."""
EDITOR_SIDE = 480
"""Longer side, in pixels, of the reference on which a region is painted."""

Thumbnails = list[tuple[Image.Image, str]]
"""Images with their captions."""


@dataclass(frozen=True)
class SearchForm:
    """The fields of the form, in the order in which the page sends them."""

    reference: str | None
    """The file of the reference image."""
    reference_id: str
    """Its id, where it was picked from the gallery."""
    text: str | None
    negative: str | None
    concept: str | None
    method: str
    second_method: str
    """A method to compare with, or `NO_METHOD`."""
    guidance: float
    control: float
    hypotheses: float
    top: float
    rerank: float
    """How many of the first answers are verified; 0: none."""
    editor: dict[str, Any] | None
    """Value of the image editor: its `layers` hold what was painted."""


@dataclass
class Panel:
    """One method's results."""

    shown: bool = False
    heading: str = ""
    thumbnails: Thumbnails = field(default_factory=list)
    image_ids: list[str] = field(default_factory=list)
    heat_map: Image.Image | None = None
    explanation: str = ""


@dataclass
class Results:
    """What one search shows: a panel a method under the query, or a message why there is none."""

    message: str
    panels: tuple[Panel, Panel]
    query: str = ""
    """Reference, texts and link, as HTML."""


@dataclass(frozen=True)
class Step:
    """A search to go back to."""

    reference: str
    reference_id: str
    text: str
    negative: str


def with_step(history: list[Step], form: SearchForm) -> list[Step]:
    """The searches so far with this one at the end, once."""
    step = Step(form.reference or "", form.reference_id, form.text or "", form.negative or "")
    return history if history and history[-1] == step else [*history, step][-MAX_HISTORY:]


class PageEvents:
    """The page's requests to a searcher."""

    def __init__(self, searcher: Searcher):
        self.searcher, self.gallery = searcher, searcher.gallery

    def search(self, form: SearchForm) -> Results:
        """Search with one or two methods.

        Args:
            form: What the visitor entered.

        Returns:
            A panel for each method, or a message and empty panels where the form cannot be used.
        """
        try:
            request = self._request(form)
            methods = dict.fromkeys(name for name in (form.method, form.second_method) if name != NO_METHOD)
            panels = [self._panel(request, method) for method in methods]
        except Exception as error:  # nothing that a visitor sends may end the server
            return Results(error_alert(error), (Panel(), Panel()))
        first, second, *_ = *panels, Panel(), Panel()
        link = Link(form.reference_id, request.text, request.controls.negative, form.method, form.second_method)
        query = query_line(data_uri(request.image), request.text, request.controls.negative, address_of(link))
        return Results("", (first, second), query)

    def _request(self, form: SearchForm) -> Request:
        if not form.reference:
            raise RequestError("there is no reference image yet: upload one, or pick one from the gallery")
        try:
            reference = decode_file(form.reference, SIDE)
        except ImageError as error:
            raise RequestError(f"this reference cannot be used: {error}") from None
        # An unmoved slider stands for the parameter, which a method may override: a negative text needs guidance.
        moved = form.guidance != self.searcher.params.retrieve.guidance_scale
        controls = Controls(
            (form.negative or "").strip(),
            region=painted_region(form.editor, reference.size),
            guidance_scale=form.guidance if moved else None,
            control_scale=form.control,
            hypotheses=int(form.hypotheses),
        )
        return Request(
            reference,
            form.text or "",
            form.method,
            int(form.top),
            form.concept or "",
            form.reference_id or None,
            controls,
            rerank=int(form.rerank),
        )

    def _panel(self, request: Request, name: str) -> Panel:
        method = find_method(name, self.searcher.params)
        region_ignored = request.controls.region is not None and "region" not in method.controls
        request = for_method(request, method)
        answer = self.searcher.search(request)
        panel = Panel(
            shown=True,
            heading=panel_heading(method.label, answer.seconds, region_ignored),
            thumbnails=[
                self._thumbnail(hit.image_id, f"{rank} · {hit.name or PurePath(hit.image_id).name}\n{hit.score:.3f}")
                for rank, hit in enumerate(answer.hits, start=1)
            ],
            image_ids=[hit.image_id for hit in answer.hits],
        )
        kept = self.searcher.explain(request)
        if kept is not None:
            panel.heat_map = heat_map(request.image, kept)
            panel.explanation = (
                "<p>What is kept of the reference: 1 - lambda of every super-patch, "
                f"from {kept.min():.2f} (dark) to {kept.max():.2f} (bright).</p>"
            )
        else:
            panel.explanation = self._explanation(answer)
        return panel

    def _explanation(self, answer: Answer) -> str:
        described = descriptions_list(answer.descriptions)
        if answer.space != FUSED:  # the training captions lie in this space alone
            return described or quiet("This method has nothing more to explain.")
        searched = "sampled targets" if answer.vector.ndim == 2 else "query vector"
        try:
            imagined = imagined_images(data_uri(image) for image in self.searcher.decoded(answer))
            nearest = imagined + captions_table(self.searcher.nearest_captions(answer), searched)
        except Exception as error:  # the results are there; only their explanation is missing
            nearest = error_alert(error)
        return described + nearest

    def gallery_image(self, image_id: str) -> Image.Image:
        """A gallery image that becomes the next reference.

        Args:
            image_id: Its id in the gallery.

        Returns:
            The image, RGB.

        Raises:
            ArtifactError: When the gallery has no such image, or it is gone.
        """
        return self.gallery.image(image_id)

    @functools.cached_property
    def examples(self) -> tuple[Example, ...]:
        """Searches to try first; none where the gallery lacks one of their references."""
        return EXAMPLES if {example.reference for example in EXAMPLES} <= set(self.gallery.ids) else ()

    def example_thumbnails(self) -> Thumbnails:
        """The references of the examples, captioned with their names and texts."""
        return [
            self._thumbnail(one.reference, f"{self.gallery.name_of(one.reference)}: {one.text}")
            for one in self.examples
        ]

    def suggest(self, words: str, page: int) -> tuple[Thumbnails, list[str]]:
        """Gallery images to start from.

        Args:
            words: Parts of the names or ids of wanted images, all of which must be there; the shortest names come
                first, which the words describe best. Empty: images from all over the gallery.
            page: Number of the selection, from 0 on; after the last page, the first one comes again.

        Returns:
            At most `SUGGESTIONS` thumbnails captioned with names and ids, and the ids.
        """
        ids = self.gallery.ids
        wanted = words.casefold().split()
        if wanted:
            known = ((image_id, self.called(image_id).casefold()) for image_id in ids)
            found = [(len(called), image_id) for image_id, called in known if all(word in called for word in wanted)]
            chosen = [image_id for _, image_id in sorted(found)]
            start = (page * SUGGESTIONS) % len(chosen) if chosen else 0
            chosen = chosen[start : start + SUGGESTIONS]
        else:
            stride = max(1, len(ids) // SUGGESTIONS)
            chosen = ids[page % stride :: stride][:SUGGESTIONS]
        return [self._thumbnail(image_id, self.called(image_id)) for image_id in chosen], chosen

    def called(self, image_id: str) -> str:
        """An image's name with its id."""
        return with_name(image_id, self.gallery.name_of(image_id))

    def _thumbnail(self, image_id: str, caption: str) -> tuple[Image.Image, str]:
        """A gallery image with its caption; a placeholder for an image that was removed after indexing."""
        shown = self.gallery.shown(image_id)
        return thumbnail(shown.image), f"{caption} · gone" if shown.is_gone else caption


def editor_value(reference: Image.Image) -> dict[str, Any]:
    """The image editor's value with a reference to paint on.

    Args:
        reference: The reference image.

    Returns:
        The background, `EDITOR_SIDE` pixels on its longer side, and no layers.
    """
    scale = EDITOR_SIDE / max(reference.size)
    width, height = (max(1, round(side * scale)) for side in reference.size)
    background = reference.resize((width, height), Image.Resampling.BICUBIC)
    return {"background": background, "layers": [], "composite": None}


def painted_region(editor: dict[str, Any] | None, size: tuple[int, int]) -> Image.Image | None:
    """What is painted in the image editor.

    Args:
        editor: The editor's value.
        size: Width and height of the reference in pixels.

    Returns:
        A region of this size (mode L, 255 where painted). None when nothing is painted.
    """
    layers = (editor or {}).get("layers") or []
    masks = [np.asarray(layer.convert("RGBA").resize(size, Image.Resampling.NEAREST))[..., 3] > 0 for layer in layers]
    mask = np.logical_or.reduce(masks) if masks else np.zeros(1, bool)
    return region_of_mask(mask) if mask.any() else None


def open_upload(path: str | Path | None) -> tuple[Image.Image | None, str]:
    """An uploaded file as an RGB image.

    Args:
        path: The file. None: the upload was removed.

    Returns:
        The image and no message, or no image and the reason as an alert.
    """
    if not path:
        return None, ""
    try:
        return decode_file(path, SIDE), ""
    except ImageError as error:
        return None, alert(f"this reference cannot be used: {error}")

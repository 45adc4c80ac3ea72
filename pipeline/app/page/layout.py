"""The demo page: where its components stand, and which event leads to what."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from pipeline.app.page.components import FormComponents, PanelComponents, build_form, build_panel
from pipeline.app.page.events import PageEvents, Panel, SearchForm, Thumbnails, editor_value, open_upload
from pipeline.app.page.image_files import ImageFiles
from pipeline.app.page.markup import error_alert, query_line, quiet
from pipeline.app.search.searcher import Searcher

MAX_RUNNING = 4
"""Requests that are answered at the same time. Others wait in the queue."""
MAX_QUEUED = 256
CACHE_SECONDS = 3_600
"""How often the cache is cleaned, and how old a file must be to go."""
WELCOME = "Upload an image or pick one, say what should be different, and press Search."


def build_page(searcher: Searcher) -> gr.Blocks:
    """Build the page over one gallery.

    Args:
        searcher: The gallery and the models.

    Returns:
        The page with its queue, ready to be launched.
    """
    with gr.Blocks(
        title="Composed image retrieval", analytics_enabled=False, delete_cache=(CACHE_SECONDS, CACHE_SECONDS)
    ) as page:
        gr.Markdown(
            "# Composed image retrieval\nSearch by an image and what should be different about it, among "
            f"{len(searcher.gallery.ids):,} images. Click a result to use it as the next reference."
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                form = build_form(searcher)
            with gr.Column(scale=5, min_width=320):
                message = gr.HTML(quiet(WELCOME), elem_id="message", padding=False)
                with gr.Row():
                    panels = [build_panel("first"), build_panel("second")]
        wiring = _Wiring(PageEvents(searcher), ImageFiles(get_upload_folder()))
        wiring.connect_search(form, message, panels)
        wiring.connect_reference(form, panels)
        wiring.connect_suggestions(form, page)
    return page.queue(default_concurrency_limit=MAX_RUNNING, max_size=MAX_QUEUED)


class _Wiring:
    """Connects components to `PageEvents` and turns what these return into components' values."""

    def __init__(self, events: PageEvents, files: ImageFiles):
        self.events, self.files = events, files

    def connect_search(self, form: FormComponents, message: gr.HTML, panels: list[PanelComponents]) -> None:
        """The button and the text's return key search."""

        def search(*values: Any) -> list[Any]:
            entered = SearchForm(*values)
            results = self.events.search(entered)
            line = results.message or query_line(entered.text or "", entered.negative or "")
            return [line, *(value for panel in results.panels for value in self._panel_values(panel))]

        gr.on(
            [form.search.click, form.text.submit],
            search,
            [getattr(form, field.name) for field in fields(SearchForm)],
            [message, *(part for panel in panels for part in _parts(panel))],
            api_name="search",
            concurrency_limit=MAX_RUNNING,
            scroll_to_output=True,
            show_progress_on=[message],
        )

    def connect_reference(self, form: FormComponents, panels: list[PanelComponents]) -> None:
        """An upload, a result and a suggestion become the reference."""

        def upload(path: str | None) -> tuple[str, Any, str]:
            image, problem = open_upload(path)
            return "", self._editor_value(image) if image else None, problem

        def select(image_ids: list[str], event: gr.SelectData) -> tuple[Any, Any, Any, str]:
            return self._select(image_ids[event.index] if 0 <= event.index < len(image_ids) else "")

        about = [form.reference_id, form.editor, form.reference_note]
        form.reference.upload(upload, [form.reference], about, api_visibility="private")
        form.reference.clear(lambda: ("", None, ""), None, about, api_visibility="private")
        selected = [form.reference, *about]
        for grid, image_ids in [
            (form.suggestions.grid, form.suggestions.image_ids),
            *((panel.grid, panel.image_ids) for panel in panels),
        ]:
            grid.select(select, [image_ids], selected, api_visibility="private", show_progress="hidden")

    def connect_suggestions(self, form: FormComponents, page: gr.Blocks) -> None:
        """Other words, the button and a new visit bring other suggestions."""

        def suggest(words: str | None, number: int) -> tuple[Any, list[str]]:
            thumbnails, image_ids = self.events.suggest(words or "", number)
            return self._saved(thumbnails), image_ids

        parts = form.suggestions
        inputs, outputs = [parts.words, parts.page], [parts.grid, parts.image_ids]
        for event, number in ((parts.words.change, lambda _: 0), (parts.more.click, lambda page: page + 1)):
            event(number, [parts.page], [parts.page], api_visibility="private").then(
                suggest, inputs, outputs, api_visibility="private", show_progress="hidden"
            )
        page.load(suggest, inputs, outputs, api_visibility="private", show_progress="hidden")

    def _select(self, image_id: str) -> tuple[Any, Any, Any, str]:
        """Values of the reference, its id, the editor and the note for a gallery image."""
        try:
            image = self.events.gallery_image(image_id)
        except Exception as error:  # nothing that a visitor sends may end the server
            return gr.skip(), gr.skip(), gr.skip(), error_alert(error)
        return self.files.save(image), image_id, self._editor_value(image), quiet(f"from the gallery: {image_id}")

    def _panel_values(self, panel: Panel) -> list[Any]:
        """Values for `_parts` of a panel's components."""
        heat_map = self.files.save(panel.heat_map) if panel.heat_map else None
        return [
            gr.Column(visible=panel.shown),
            panel.heading,
            self._saved(panel.thumbnails),
            panel.image_ids,
            panel.explanation,
            gr.Image(heat_map, visible=heat_map is not None),
        ]

    def _saved(self, thumbnails: Thumbnails) -> list[tuple[str, str]]:
        return [(self.files.save(image, "webp"), caption) for image, caption in thumbnails]

    def _editor_value(self, reference: Image.Image) -> dict[str, Any]:
        value = editor_value(reference)
        return value | {"background": self.files.save(value["background"])}


def _parts(panel: PanelComponents) -> list[Any]:
    return [getattr(panel, field.name) for field in fields(panel)]

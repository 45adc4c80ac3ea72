"""The demo page: where its components stand, and which event leads to what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import gradio as gr
from gradio.events import Dependency
from gradio.utils import get_upload_folder
from PIL import Image

from pipeline.app.page.components import (
    FormComponents,
    PanelComponents,
    build_bar,
    build_panel,
    build_settings,
    build_starts,
)
from pipeline.app.page.events import (
    NO_METHOD,
    PageEvents,
    Panel,
    SearchForm,
    Step,
    Thumbnails,
    editor_value,
    open_upload,
    with_step,
)
from pipeline.app.page.image_files import ImageFiles
from pipeline.app.page.links import read_address
from pipeline.app.page.markup import error_alert, quiet
from pipeline.app.page.script import SHOW_ANSWER, titles
from pipeline.app.page.words import CONTROLS, of_method
from pipeline.app.search.searcher import Searcher
from pipeline.query.registry import find_method

MAX_RUNNING = 4
"""Requests that are answered at the same time. Others wait in the queue."""
MAX_QUEUED = 256
CACHE_SECONDS = 3_600
"""How often the cache is cleaned, and how old a file must be to go."""
WELCOME = "Upload an image or pick one, say what should be different, and press Enter."


def build_page(searcher: Searcher) -> gr.Blocks:
    """Build the page over one gallery.

    Args:
        searcher: The gallery and the models.

    Returns:
        The page with its queue, ready to be launched.
    """
    events = PageEvents(searcher)
    with gr.Blocks(
        title="Composed image retrieval", analytics_enabled=False, delete_cache=(CACHE_SECONDS, CACHE_SECONDS)
    ) as page:
        gr.Markdown(
            "# Composed image retrieval\nSearch by an image and what should be different about it, among "
            f"{len(searcher.gallery.ids):,} images. Click a result to search on from there."
        )
        if known := searcher.gallery.note(searcher.params):
            gr.HTML(quiet(known), elem_id="known", padding=False)
        bar = build_bar()
        with gr.Row(elem_id="below"):
            with gr.Column(scale=5, min_width=320):
                starts = build_starts(bool(events.examples))
                message = gr.HTML(quiet(WELCOME), elem_id="message", padding=False)
                with gr.Row():
                    panels = [build_panel("first"), build_panel("second")]
            with gr.Column(scale=2, min_width=300, elem_id="settings"):
                settings = build_settings(searcher)
        form = FormComponents(**bar, **starts, **settings)
        wiring = _Wiring(events, ImageFiles(get_upload_folder()), form, message, panels)
        wiring.connect(page)
    return page.queue(default_concurrency_limit=MAX_RUNNING, max_size=MAX_QUEUED)


class _Wiring:
    """Connects components to `PageEvents` and turns what these return into components' values."""

    def __init__(
        self,
        events: PageEvents,
        files: ImageFiles,
        form: FormComponents,
        message: gr.HTML,
        panels: Sequence[PanelComponents],
    ):
        self.events, self.files = events, files
        self.form, self.message, self.panels = form, message, panels
        self.selected = [form.reference, form.reference_id, form.editor, form.reference_note]
        """What changes when an image becomes the reference."""

    def connect(self, page: gr.Blocks) -> None:
        """Connect everything."""
        self.connect_search()
        self.connect_reference()
        self.connect_examples(page)
        self.connect_suggestions(page)
        self.connect_address(page)
        self.form.method.change(
            self._method_info, [self.form.method], [self.form.method], api_visibility="private", show_progress="hidden"
        )
        page.load(None, js=titles(CONTROLS, self._method_titles()))

    def connect_search(self) -> None:
        """The button and the return key search; Back returns to the search before."""
        form = self.form
        pressed = [form.search.click, form.text.submit, form.negative.submit, form.concept.submit]
        self._searched(gr.on(pressed, **self._search("search")))
        restored = form.back.click(
            self._go_back,
            [form.history],
            [form.history, *self.selected, form.text, form.negative],
            api_visibility="private",
            show_progress="hidden",
        )
        self._then_search(restored)

    def connect_reference(self) -> None:
        """An upload becomes the reference, and so does a result, from which the search goes on."""
        form = self.form

        def upload(path: str | None) -> tuple[str, Any, str]:
            image, problem = open_upload(path)
            return "", self._editor_value(image) if image else None, problem

        about = self.selected[1:]
        form.reference.upload(upload, [form.reference], about, api_visibility="private")
        form.reference.clear(lambda: ("", None, ""), None, about, api_visibility="private")
        for panel in self.panels:
            self._then_search(self._on_select(panel.grid, panel.image_ids))
        self._on_select(form.suggestions.grid, form.suggestions.image_ids)

    def connect_examples(self, page: gr.Blocks) -> None:
        """A click on an example fills the form and searches."""
        form = self.form

        def fill(event: gr.SelectData) -> tuple[Any, ...]:
            example = self.events.examples[event.index]
            return *self._select(example.reference), example.text, ""

        filled = form.examples.grid.select(
            fill, None, [*self.selected, form.text, form.negative], api_visibility="private", show_progress="hidden"
        )
        self._then_search(filled)
        page.load(
            lambda: self._saved(self.events.example_thumbnails()),
            None,
            [form.examples.grid],
            api_visibility="private",
            show_progress="hidden",
        )

    def connect_suggestions(self, page: gr.Blocks) -> None:
        """Other words, the button and a new visit bring other suggestions."""

        def suggest(words: str | None, number: int) -> tuple[Any, list[str]]:
            thumbnails, image_ids = self.events.suggest(words or "", number)
            return self._saved(thumbnails), image_ids

        parts = self.form.suggestions
        inputs, outputs = [parts.words, parts.page], [parts.grid, parts.image_ids]
        for event, number in ((parts.words.change, lambda _: 0), (parts.more.click, lambda page: page + 1)):
            event(number, [parts.page], [parts.page], api_visibility="private").then(
                suggest, inputs, outputs, api_visibility="private", show_progress="hidden"
            )
        page.load(suggest, inputs, outputs, api_visibility="private", show_progress="hidden")

    def connect_address(self, page: gr.Blocks) -> None:
        """A visitor who comes by the address of a search sees its results."""
        form, methods = self.form, self.events.searcher.methods

        def arrive(request: gr.Request) -> list[Any]:
            link = read_address(dict(request.query_params), methods, NO_METHOD)
            if not link.image:
                return [gr.skip()] * 9
            first, second = link.method or gr.skip(), link.second_method or gr.skip()
            return [*self._select(link.image), link.text, link.negative, first, second, True]

        arrived = gr.State(False)
        filled = [*self.selected, form.text, form.negative, form.method, form.second_method, arrived]
        page.load(arrive, None, filled, api_visibility="private", show_progress="hidden")
        self._searched(arrived.change(**self._search()))

    def _search(self, api_name: str | None = None) -> dict[str, Any]:
        """The arguments of an event that searches with what the form holds."""
        form = self.form
        return {
            "fn": self._answer,
            "inputs": [form.history, *(getattr(form, field.name) for field in fields(SearchForm))],
            "outputs": [
                self.message,
                *(part for panel in self.panels for part in _parts(panel)),
                form.history,
                form.back,
                form.examples.accordion,
            ],
            "concurrency_limit": MAX_RUNNING,
            "show_progress_on": [self.message],
            **({"api_name": api_name} if api_name else {"api_visibility": "private"}),
        }

    def _then_search(self, event: Dependency) -> None:
        self._searched(event.then(**self._search()))

    def _searched(self, event: Dependency) -> None:
        event.then(None, js=SHOW_ANSWER)

    def _answer(self, history: list[Step], *values: Any) -> list[Any]:
        entered = SearchForm(*values)
        results = self.events.search(entered)
        if not results.message:
            history = with_step(history, entered)
        return [
            results.message or results.query,
            *(value for panel in results.panels for value in self._panel_values(panel)),
            history,
            gr.Button(interactive=len(history) > 1),
            gr.skip() if results.message else gr.Accordion(open=False),
        ]

    def _go_back(self, history: list[Step]) -> list[Any]:
        """The search before the last one, without the last one in the history."""
        if len(history) < 2:
            return [gr.skip()] * 7
        step = history[-2]
        if step.reference_id:
            reference = self._select(step.reference_id)
        else:
            image, problem = open_upload(step.reference)
            reference = (step.reference, "", self._editor_value(image) if image else None, problem)
        return [history[:-1], *reference, step.text, step.negative]

    def _on_select(self, grid: gr.Gallery, image_ids: gr.State) -> Dependency:
        def select(image_ids: list[str], event: gr.SelectData) -> tuple[Any, Any, Any, str]:
            return self._select(image_ids[event.index] if 0 <= event.index < len(image_ids) else "")

        return grid.select(select, [image_ids], self.selected, api_visibility="private", show_progress="hidden")

    def _select(self, image_id: str) -> tuple[Any, Any, Any, str]:
        """Values of the reference, its id, the editor and the note for a gallery image."""
        try:
            image = self.events.gallery_image(image_id)
        except Exception as error:  # nothing that a visitor sends may end the server
            return gr.skip(), gr.skip(), gr.skip(), error_alert(error)
        note = quiet(f"from the gallery: {self.events.called(image_id)}")
        return self.files.save(image), image_id, self._editor_value(image), note

    def _method_info(self, name: str) -> Any:
        return gr.Dropdown(info=of_method(find_method(name, self.events.searcher.params)))

    def _method_titles(self) -> dict[str, str]:
        """Label -> words, for the entries of the menus."""
        found = (find_method(name, self.events.searcher.params) for name in self.events.searcher.methods)
        return {method.label: of_method(method) for method in found}

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

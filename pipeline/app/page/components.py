"""The components of the demo page: the form above, one or two panels of results below it."""

from __future__ import annotations

from abc import ABCMeta
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from pipeline.app.page.events import NO_METHOD
from pipeline.app.page.words import CONTROLS, of_method
from pipeline.app.search.searcher import Searcher
from pipeline.app.search.verifying import can_verify
from pipeline.query.registry import find_method

NOT_UPLOADED = "not an upload of this page"
"""Stands for a path that was not uploaded; no such file exists."""


@dataclass(frozen=True)
class SuggestionComponents:
    """Gallery images that a visitor can pick as the reference."""

    words: gr.Textbox
    more: gr.Button
    grid: gr.Gallery
    image_ids: gr.State
    page: gr.State


@dataclass(frozen=True)
class ExampleComponents:
    """Searches that work, to begin with."""

    accordion: gr.Accordion
    grid: gr.Gallery


@dataclass(frozen=True)
class FormComponents:
    """The form. Components with the names of `SearchForm`'s fields hold its values."""

    reference: gr.Image
    reference_id: gr.State
    reference_note: gr.HTML
    """Where the reference comes from, or why an upload cannot be used."""
    text: gr.Textbox
    negative: gr.Textbox
    method: gr.Dropdown
    second_method: gr.Dropdown
    search: gr.Button
    back: gr.Button
    history: gr.State
    """The searches so far, the last one last."""
    examples: ExampleComponents
    suggestions: SuggestionComponents
    editor: gr.ImageEditor
    guidance: gr.Slider
    control: gr.Slider
    hypotheses: gr.Slider
    concept: gr.Textbox
    top: gr.Slider
    rerank: gr.Slider


@dataclass(frozen=True)
class PanelComponents:
    """One method's results."""

    column: gr.Column
    heading: gr.HTML
    grid: gr.Gallery
    image_ids: gr.State
    explanation: gr.HTML
    heat_map: gr.Image


def build_bar() -> dict[str, Any]:
    """The reference and the words about it, which stay in sight while a visitor goes through the results.

    Returns:
        Components by the names of `FormComponents`' fields.
    """
    with gr.Row(elem_id="bar"):
        with gr.Column(scale=0, min_width=140, elem_id="bar-reference"):
            reference = build_reference()
        with gr.Column(scale=1, min_width=150, elem_id="bar-words"):
            text = gr.Textbox(
                label="What should be different?",
                placeholder="as a firefighter",
                lines=1,
                max_lines=1,
                elem_id="text",
            )
            with gr.Row(elem_id="bar-buttons"):
                search = gr.Button("Search", variant="primary", elem_id="search", min_width=60)
                back = gr.Button("Back", interactive=False, elem_id="back", min_width=60)
    return {
        "reference": reference,
        "text": text,
        "search": search,
        "back": back,
        "reference_id": gr.State(""),
        "history": gr.State([]),
    }


def build_starts(has_examples: bool) -> dict[str, Any]:
    """Where a visitor without an image begins: examples, where the gallery has any, and its own images."""
    note = gr.HTML(elem_id="reference-note", padding=False)
    with gr.Accordion("Try one", open=True, visible=has_examples, elem_id="examples") as accordion:
        examples = ExampleComponents(accordion, build_grid("example-grid"))
    with gr.Accordion("Pick a reference from the gallery", open=not has_examples, elem_id="pick"):
        suggestions = build_suggestions()
    return {"reference_note": note, "examples": examples, "suggestions": suggestions}


def build_settings(searcher: Searcher) -> dict[str, Any]:
    """Methods and controls.

    Args:
        searcher: Its methods are the choices, its parameters the initial values.
    """
    method, second_method = build_methods(searcher)
    negative = gr.Textbox(
        label="What it should not be", placeholder="optional", lines=1, max_lines=1, elem_id="negative"
    )
    with gr.Accordion("More settings", open=False, elem_id="scales"):
        scales = build_scales(searcher)
    with gr.Accordion("Paint a region that changes (DiffComp)", open=False, elem_id="region"):
        editor = build_editor()
    return {"method": method, "second_method": second_method, "negative": negative, "editor": editor, **scales}


def build_methods(searcher: Searcher) -> tuple[gr.Dropdown, gr.Dropdown]:
    """The method, with what it does in plain words, and the one to compare with."""
    found = [find_method(name, searcher.params) for name in searcher.methods]
    choices, second = [(method.label, method.name) for method in found], found[1].name if len(found) > 1 else NO_METHOD
    first = gr.Dropdown(choices, value=found[0].name, label="Method", info=of_method(found[0]), elem_id="method")
    compared = gr.Dropdown(
        [("nothing", NO_METHOD), *choices], value=second, label="Compare with", elem_id="second-method"
    )
    return first, compared


def build_scales(searcher: Searcher) -> dict[str, Any]:
    """Fusion-Diff's settings and the numbers of results and verified ones, each with what it means."""
    retrieve, most = searcher.params.retrieve, min(50, len(searcher.gallery.ids))
    shown = can_verify(searcher.params)
    return {
        "rerank": gr.Slider(0, most, 0, step=1, label="Verify", info=CONTROLS["rerank"], visible=shown),
        "top": gr.Slider(1, 50, 12, step=1, label="Results", info=CONTROLS["top"]),
        "concept": gr.Textbox(
            label="What both images have in common", placeholder="optional", max_lines=1, info=CONTROLS["concept"]
        ),
        "guidance": gr.Slider(
            0, 10, retrieve.guidance_scale, step=0.1, label="Guidance scale", info=CONTROLS["guidance"]
        ),
        "control": gr.Slider(0, 3, retrieve.control_scale, step=0.05, label="Control scale", info=CONTROLS["control"]),
        "hypotheses": gr.Slider(1, 32, retrieve.hypotheses, step=1, label="Hypotheses", info=CONTROLS["hypotheses"]),
    }


def _uploaded_path(component: gr.Image, payload: Any) -> str | None:
    """The file of an upload. A visitor who names any other file gets what a missing file gets."""
    if not payload:
        return None
    uploads = Path(get_upload_folder()).resolve()
    return payload.path if Path(payload.path).resolve().is_relative_to(uploads) else NOT_UPLOADED


# Gradio makes components anew from their class for each visitor, so a method of one instance would not last. A class
# statement would make Gradio write a stub file beside this module.
Upload = ABCMeta.__new__(type(gr.Image), "Upload", (gr.Image,), {"preprocess": _uploaded_path, "is_template": True})
"""An image that is handed on as a path: what is not an image gets a sentence, not an error."""


def build_reference() -> gr.Image:
    """The reference image."""
    return Upload(
        show_label=False,
        type="filepath",
        format="png",
        sources=["upload", "clipboard"],
        height=150,
        elem_id="reference",
        buttons=[],
    )


def build_suggestions() -> SuggestionComponents:
    """A search box over the gallery's names and ids, and a grid of images."""
    with gr.Row():
        words = gr.Textbox(show_label=False, placeholder="a name", container=False, scale=3, min_width=120)
        more = gr.Button("More", scale=1, min_width=80)
    return SuggestionComponents(words, more, build_grid("suggestions"), gr.State([]), gr.State(0))


def build_editor() -> gr.ImageEditor:
    """An editor with a brush, for the region that changes."""
    return gr.ImageEditor(
        type="pil",
        show_label=False,
        sources=(),
        transforms=(),
        layers=False,
        elem_id="editor",
        height=420,
        buttons=[],
        brush=gr.Brush(default_size=48, colors=["#d9481f"], color_mode="fixed"),
        format="png",
    )


def build_panel(name: str) -> PanelComponents:
    """A hidden panel for one method's results.

    Args:
        name: What its HTML ids begin with.

    Returns:
        The panel's components.
    """
    with gr.Column(visible=False, min_width=300, elem_id=name) as column:
        heading = gr.HTML(padding=False)
        grid = build_grid(f"{name}-results")
        with gr.Accordion("Why?", open=True):
            explanation = gr.HTML(elem_classes="cir-explanation", elem_id=f"{name}-explanation", padding=False)
            heat_map = gr.Image(
                show_label=False,
                interactive=False,
                height=260,
                buttons=[],
                visible=False,
                format="png",
                elem_id=f"{name}-heat-map",
                container=False,
            )
    return PanelComponents(column, heading, grid, gr.State([]), explanation, heat_map)


def build_grid(name: str) -> gr.Gallery:
    """A grid of thumbnails that can be clicked."""
    return gr.Gallery(
        columns=4,
        allow_preview=False,
        show_label=False,
        object_fit="contain",
        buttons=[],
        elem_id=name,
        elem_classes="cir-grid",
    )

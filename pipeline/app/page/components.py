"""The components of the demo page: the form on the left, one or two panels of results on the right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from pipeline.app.page.events import NO_METHOD
from pipeline.app.search.searcher import Searcher
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
    suggestions: SuggestionComponents
    editor: gr.ImageEditor
    guidance: gr.Slider
    control: gr.Slider
    hypotheses: gr.Slider
    concept: gr.Textbox
    top: gr.Slider


@dataclass(frozen=True)
class PanelComponents:
    """One method's results."""

    column: gr.Column
    heading: gr.HTML
    grid: gr.Gallery
    image_ids: gr.State
    explanation: gr.HTML
    heat_map: gr.Image


def build_form(searcher: Searcher) -> FormComponents:
    """Lay the form out in the current container.

    Args:
        searcher: Its methods are the choices, its parameters the initial values.

    Returns:
        The form's components.
    """
    methods, retrieve = searcher.methods, searcher.params.retrieve
    choices = [(find_method(name, searcher.params).label, name) for name in methods]
    second_choices = [("nothing", NO_METHOD), *choices]
    second = methods[1] if len(methods) > 1 else NO_METHOD
    reference = build_reference()
    note = gr.HTML(elem_id="reference-note", padding=False)
    text = gr.Textbox(label="What should be different?", placeholder="make it a firefighter", lines=2, elem_id="text")
    negative = gr.Textbox(label="What it should not be", placeholder="optional", elem_id="negative")
    method = gr.Dropdown(choices, value=methods[0], label="Method", elem_id="method")
    second_method = gr.Dropdown(second_choices, value=second, label="Compare with", elem_id="second-method")
    search = gr.Button("Search", variant="primary", elem_id="search")
    with gr.Accordion("Pick from the gallery", open=False, elem_id="pick"):
        suggestions = build_suggestions()
    with gr.Accordion("Paint a region that changes (DiffComp)", open=False, elem_id="region"):
        editor = build_editor()
    with gr.Accordion("Scales and hypotheses (Fusion-Diff)", open=False, elem_id="scales"):
        guidance = gr.Slider(0, 10, retrieve.guidance_scale, step=0.1, label="Guidance scale")
        control = gr.Slider(0, 3, retrieve.control_scale, step=0.05, label="Control scale")
        hypotheses = gr.Slider(1, 32, retrieve.hypotheses, step=1, label="Hypotheses")
        concept = gr.Textbox(label="What both images have in common", placeholder="optional")
    return FormComponents(
        reference=reference,
        reference_id=gr.State(""),
        reference_note=note,
        text=text,
        negative=negative,
        method=method,
        second_method=second_method,
        search=search,
        suggestions=suggestions,
        editor=editor,
        guidance=guidance,
        control=control,
        hypotheses=hypotheses,
        concept=concept,
        top=gr.Slider(1, 50, 12, step=1, label="Results"),
    )


def build_reference() -> gr.Image:
    """The reference image, which hands an upload on as a path: what is not an image gets a sentence, not an error."""
    reference = gr.Image(
        label="Reference",
        type="filepath",
        format="png",
        sources=["upload", "clipboard"],
        height=260,
        elem_id="reference",
        buttons=[],
    )
    # Not in a subclass: gradio would write a stub file for it beside this module.
    reference.preprocess = _uploaded_path  # type: ignore[method-assign]
    return reference


def _uploaded_path(payload: Any) -> str | None:
    """The file of an upload. A visitor who names any other file gets what a missing file gets."""
    if not payload:
        return None
    uploads = Path(get_upload_folder()).resolve()
    return payload.path if Path(payload.path).resolve().is_relative_to(uploads) else NOT_UPLOADED


def build_suggestions() -> SuggestionComponents:
    """A search box over the gallery's ids, and a grid of images."""
    with gr.Row():
        words = gr.Textbox(show_label=False, placeholder="part of a name", container=False, scale=3, min_width=120)
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

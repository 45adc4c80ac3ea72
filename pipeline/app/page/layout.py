"""`cir demo`: the page. Its layout and what leads to what; the answers come from `pipeline.app.page.events`."""

from __future__ import annotations

import os
import tempfile
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from pipeline.app.page.events import NONE, Answers, Panel, asked, editor_value, friendly, open_reference
from pipeline.app.page.image_files import ImageFiles
from pipeline.app.search.searcher import Searcher
from pipeline.report.names import describe

AT_ONCE = 4
"""Requests in work at the same time; the others wait in the queue."""
HOUR = 3_600
MISSING = "no upload of this page"
WELCOME = '<p class="cir-quiet">Upload an image or pick one, say what should be different, and press Search.</p>'
CSS = """
.cir-message { border-left: 4px solid #d9481f; background: color-mix(in srgb, #d9481f 12%, transparent); padding: .6rem .9rem;
  border-radius: 6px; overflow-wrap: anywhere; }
.cir-quiet { opacity: .7; font-size: .85rem; margin: 0; }
.cir-asked { font-size: 1.1rem; overflow-wrap: anywhere; margin: 0; }
.cir-asked span { opacity: .7; }
.cir-why blockquote, .cir-why td + td { overflow-wrap: anywhere; }
.cir-why table, .cir-why tr, .cir-why td { border: 0 !important; vertical-align: top; }
.cir-why td { padding: .15rem .6rem .15rem 0 !important; }
#trail { min-height: 0; }
.cir-grid, .cir-grid .grid-wrap { min-height: 0 !important; height: auto !important; }
.cir-grid .grid-container { grid-template-columns: repeat(auto-fill, minmax(5.5rem, 1fr)) !important; height: auto !important; }
.cir-grid .caption-label { font-size: .7rem; left: 0; right: 0; bottom: 0; max-width: none; margin: 0; padding: 0 .3rem; border-radius: 0;
  opacity: .9; text-align: center; }
.cir-grid:not(#picks) img { padding-bottom: 1.2rem; box-sizing: border-box; }
#picks { max-height: 300px; overflow-y: auto; }
#picks .caption-label { display: none; }
#picks .grid-container { grid-template-columns: repeat(auto-fill, minmax(3.2rem, 1fr)) !important; }
footer { display: none !important; }
"""


class ServeError(ValueError):
    """Why there is no page to serve."""


def build(searcher: Searcher) -> gr.Blocks:
    """The page over one gallery."""
    answers, methods, retrieve = Answers(searcher), searcher.methods, searcher.params.retrieve
    files = ImageFiles(get_upload_folder())
    choices = [(describe(name).label, name) for name in methods]
    with gr.Blocks(title="Composed image retrieval", analytics_enabled=False, delete_cache=(HOUR, HOUR)) as page:
        count = f"{len(searcher.gallery.ids):,}"
        gr.Markdown(
            f"# Composed image retrieval\nA image and what should be different about it, looked up among {count} images. "
            "Click an answer to go on from it."
        )
        reference_id, picked_ids, pick_page = gr.State(""), gr.State([]), gr.State(0)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                reference = gr.Image(
                    label="Reference",
                    type="filepath",
                    format="png",
                    sources=["upload", "clipboard"],
                    height=260,
                    elem_id="reference",
                    buttons=[],
                )
                reference.preprocess = (
                    _path  # an upload is judged here: what is no image gets a sentence, not a stack trace
                )
                trail = gr.HTML(elem_id="trail", padding=False)
                text = gr.Textbox(
                    label="What should be different?", placeholder="make it a firefighter", lines=2, elem_id="text"
                )
                negative = gr.Textbox(label="What it should not be", placeholder="optional", elem_id="negative")
                method = gr.Dropdown(choices, value=methods[0], label="Method", elem_id="method")
                other = gr.Dropdown(
                    [("nothing", NONE), *choices],
                    value=methods[1] if len(methods) > 1 else NONE,
                    label="Beside it",
                    elem_id="other",
                )
                go = gr.Button("Search", variant="primary", elem_id="go")
                with gr.Accordion("Pick from the gallery", open=False, elem_id="pick"):
                    with gr.Row():
                        words = gr.Textbox(
                            show_label=False, placeholder="part of a name", container=False, scale=3, min_width=120
                        )
                        others = gr.Button("Others", scale=1, min_width=80)
                    picks = _grid("picks")
                with gr.Accordion("Paint a region that changes (DiffComp)", open=False, elem_id="region"):
                    editor = gr.ImageEditor(
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
                with gr.Accordion("Scales and hypotheses (Fusion-Diff)", open=False, elem_id="scales"):
                    guidance = gr.Slider(0, 10, retrieve.guidance_scale, step=0.1, label="Guidance scale")
                    control = gr.Slider(0, 3, retrieve.control_scale, step=0.05, label="Control scale")
                    hypotheses = gr.Slider(1, 32, retrieve.hypotheses, step=1, label="Hypotheses")
                    concept = gr.Textbox(label="What both images have in common", placeholder="optional")
                top = gr.Slider(1, 50, 12, step=1, label="Answers")
            with gr.Column(scale=5, min_width=320):
                message = gr.HTML(WELCOME, elem_id="message", padding=False)
                with gr.Row():
                    panels = [_panel("first"), _panel("second")]

        inputs = [
            reference,
            reference_id,
            text,
            negative,
            concept,
            method,
            other,
            guidance,
            control,
            hypotheses,
            top,
            editor,
        ]
        outputs = [message, *(part for panel in panels for part in panel)]

        def search(*values: Any) -> list[Any]:
            names = [
                "reference",
                "reference_id",
                "text",
                "negative",
                "concept",
                "method",
                "other",
                "guidance",
                "control",
                "hypotheses",
                "top",
                "region",
            ]
            form = dict(zip(names, values, strict=True))
            results = answers.search(form)
            line = results.message or asked(form["text"], form["negative"])
            return [line, *(value for panel in results.panels for value in _shown(panel, files))]

        def chosen(image_id: str) -> tuple[Any, str, Any, str]:
            """A gallery image becomes the reference."""
            found: list[Any] = []
            problem = friendly(lambda: found.append(answers.reference(image_id)))
            if problem:
                return gr.skip(), gr.skip(), gr.skip(), problem
            said = f'<p class="cir-quiet">from the gallery: {escape(image_id)}</p>'
            return files.keep(found[0]), image_id, _paintable(found[0], files), said

        def from_list(ids: list[str], event: gr.SelectData) -> tuple[Any, str, Any, str]:
            return chosen(ids[event.index] if 0 <= event.index < len(ids) else "")

        def uploaded(path: str | None) -> tuple[str, Any, str]:
            image, problem = open_reference(path)
            return "", _paintable(image, files) if image else None, problem

        def offered(words: str, number: int) -> tuple[Any, list[str]]:
            pictures, ids = answers.picks(words or "", number)
            return _kept(pictures, files), ids

        becomes = [reference, reference_id, editor, trail]
        gr.on(
            [go.click, text.submit],
            search,
            inputs,
            outputs,
            api_name="search",
            concurrency_limit=AT_ONCE,
            scroll_to_output=True,
            show_progress_on=[message],
        )
        reference.upload(uploaded, [reference], [reference_id, editor, trail], api_visibility="private")
        reference.clear(lambda: ("", None, ""), None, [reference_id, editor, trail], api_visibility="private")
        for _, _, gallery, ids, _, _ in panels:
            gallery.select(from_list, [ids], becomes, api_visibility="private", show_progress="hidden")
        picks.select(from_list, [picked_ids], becomes, api_visibility="private", show_progress="hidden")
        for event, number in ((words.change, lambda _: 0), (others.click, lambda page: page + 1)):
            event(number, [pick_page], [pick_page], api_visibility="private").then(
                offered, [words, pick_page], [picks, picked_ids], api_visibility="private", show_progress="hidden"
            )
        page.load(offered, [words, pick_page], [picks, picked_ids], api_visibility="private", show_progress="hidden")
    return page.queue(default_concurrency_limit=AT_ONCE, max_size=256)


def _path(payload: Any) -> str | None:
    """An upload's file; a visitor who names any other one gets what a missing file gets."""
    if not payload:
        return None
    inside = Path(payload.path).resolve().is_relative_to(Path(get_upload_folder()).resolve())
    return payload.path if inside else MISSING


def _panel(name: str) -> tuple[Any, ...]:
    """Components of one method's answers, in the order of `_shown`."""
    with gr.Column(visible=False, min_width=300, elem_id=name) as column:
        title = gr.HTML(padding=False)
        gallery = _grid(f"{name}-answers")
        ids = gr.State([])
        with gr.Accordion("Why?", open=True):
            why = gr.HTML(elem_classes="cir-why", elem_id=f"{name}-why", padding=False)
            heat = gr.Image(
                show_label=False,
                interactive=False,
                height=260,
                buttons=[],
                visible=False,
                format="png",
                elem_id=f"{name}-heat",
                container=False,
            )
    return column, title, gallery, ids, why, heat


def _grid(name: str) -> gr.Gallery:
    return gr.Gallery(
        columns=4,
        allow_preview=False,
        show_label=False,
        object_fit="contain",
        buttons=[],
        elem_id=name,
        elem_classes="cir-grid",
    )


def _shown(panel: Panel, files: ImageFiles) -> list[Any]:
    heat = files.keep(panel.heat) if panel.heat else None
    return [
        gr.Column(visible=panel.shown),
        panel.title,
        _kept(panel.pictures, files),
        panel.ids,
        panel.why,
        gr.Image(heat, visible=heat is not None),
    ]


def _kept(pictures: list[tuple[Image.Image, str]], files: ImageFiles) -> list[tuple[str, str]]:
    return [(files.keep(picture, "webp"), caption) for picture, caption in pictures]


def _paintable(reference: Image.Image, files: ImageFiles) -> dict[str, Any]:
    value = editor_value(reference)
    return value | {"background": files.keep(value["background"])}


def launch(searcher: Searcher, host: str = "127.0.0.1", port: int = 7860, wait: bool = True) -> gr.Blocks:
    """Serve the page; files that it makes live in GRADIO_TEMP_DIR. `wait` until the process is told to end."""
    page = build(searcher)
    fonts = ["system-ui", "sans-serif"]
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=False,
        quiet=True,
        prevent_thread_lock=not wait,
        ssr_mode=False,
        allowed_paths=[],
        max_file_size="60mb",
        show_error=False,
        footer_links=[],
        css=CSS,
        enable_monitoring=False,
        theme=gr.themes.Soft(font=fonts, font_mono=["ui-monospace", "monospace"]),
    )
    return page


def serve(searcher: Searcher, host: str, port: int) -> None:
    """Warm the models up, then serve until interrupted. Uploads and thumbnails are gone with the process."""
    with tempfile.TemporaryDirectory(prefix="cir-demo-") as cache:
        os.environ["GRADIO_TEMP_DIR"] = cache
        if not searcher.methods:
            raise ServeError(
                f"{searcher.gallery.indexes}: no method has both a trained model and an index here; see `cir index --help`"
            )
        searcher.warm(searcher.methods[:2])
        print(f"http://{host}:{port}", flush=True)
        try:
            launch(searcher, host, port)
        except OSError as error:
            raise ServeError(f"{host}:{port}: cannot listen there ({str(error).splitlines()[0]})") from None

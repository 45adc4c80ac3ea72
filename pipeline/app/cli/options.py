"""The options of `cir index`, `cir search` and `cir demo`, with their help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from pipeline.app.cli.method_names import listed

_FUSION_DIFF, _DIFFCOMP, _OUTPUT, _COMPUTING = "Fusion-Diff", "DiffComp", "Output", "Models and computing"

PARAMS_FILE = Path("params.yaml")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"cir {version('composed-image-retrieval')}")
        raise typer.Exit


Version = Annotated[
    bool, Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
]
ProjectFolder = Annotated[
    Path | None,
    Option(
        "--project",
        help="The project's folder: its models search from anywhere. Default: the one around the working folder.",
    ),
]
Debug = Annotated[bool, Option("--debug", help="Show the traceback of an error.")]
ParamsPath = Annotated[
    Path,
    Option("--params", rich_help_panel=_COMPUTING, help="The file with model paths, sizes and defaults."),
]
Threads = Annotated[
    int,
    Option(min=1, rich_help_panel=_COMPUTING, help="CPU threads of a search. Large models gain from more."),
]
GalleryName = Annotated[
    str,
    Option(
        help="What to search: a folder that `cir index` has indexed, its library's folder or name, or a benchmark. "
        "Default: the benchmark that `dvc repro` has indexed."
    ),
]
LibraryFolder = Annotated[
    Path | None,
    Option(help="The library folder for vectors and indexes. Default: FOLDER/.cir."),
]
LibraryName = Annotated[
    str,
    Option(
        help="Give the library a name, which `cir search --gallery` takes from anywhere. It lies in $CIR_HOME, by "
        "default ~/.local/share/cir, in the place of --out."
    ),
]
IndexedMethods = Annotated[
    list[str] | None,
    Option(
        help="A method to index for; may be repeated. "
        "Default: fusion_diff, diffcomp_relative and the methods without training, as far as trained. "
        f"Methods: {listed()}."
    ),
]
EncoderName = Annotated[
    str,
    Option(
        help="Search photographs without training: MODEL/WEIGHTS of open_clip, such as ViT-L-14-quickgelu/openai, the "
        "hub name of a CLIP or SigLIP, or a folder with one. `cir models fetch` downloads it. Default: the models of "
        "the parameters; those of the default profile know emoji only."
    ),
]
DescriberName = Annotated[
    str,
    Option(
        help="A multimodal LLM that describes targets, as CIReVL needs over an encoder of one's own: a folder, or a "
        "hub name such as Qwen/Qwen2.5-VL-3B-Instruct. `cir models fetch --describer` downloads it."
    ),
]

ReferenceName = Annotated[str, Option(help="The reference: an image file, or the id of an image in the gallery.")]
Modification = Annotated[
    str,
    Option(help="The modification: what should be different. `-` reads one a line from standard input."),
]
SearchedMethods = Annotated[
    list[str] | None,
    Option(
        help="May be repeated to compare methods. Default: fusion_diff, or slerp over an encoder of one's own. "
        f"Methods: {listed()}."
    ),
]
Where = Annotated[
    str,
    Option(
        help="Only images whose metadata pass: `year >= 2020 and (author in ['Ann', 'Bo'] or not tag like 'draft%')`. "
        "path, size and date are known of every image."
    ),
]
Top = Annotated[int, Option(help="The number of results.")]
Rerank = Annotated[
    int,
    Option(
        help="How many of the first answers a multimodal LLM verifies: it sees reference, modification and answer, and "
        "the probability of yes orders them. The model is the parameters' `reranker`, or that of --describer."
    ),
]
Negative = Annotated[str, Option(help="What the results should not show.")]
NegativeWeight = Annotated[
    float,
    Option(help="How far the query turns away from it, 0 to 1. No effect where Fusion-Diff samples: it uses guidance."),
]
Region = Annotated[
    str,
    Option(
        rich_help_panel=_DIFFCOMP,
        help="What may change: x0,y0,x1,y1 as fractions of width and height, or the file of a mask.",
    ),
]
Concept = Annotated[
    str,
    Option(rich_help_panel=_FUSION_DIFF, help="What the reference and the target have in common."),
]
Guidance = Annotated[
    float | None,
    Option(rich_help_panel=_FUSION_DIFF, help="Guidance scale. Default: from the parameters."),
]
Control = Annotated[
    float | None,
    Option(rich_help_panel=_FUSION_DIFF, help="Control scale. Default: from the parameters."),
]
SamplerName = Annotated[
    str | None,
    Option(
        rich_help_panel=_FUSION_DIFF,
        help="dpm, or distilled where a student was trained (distill.enabled). Default: from the parameters.",
    ),
]
Hypotheses = Annotated[
    int | None,
    Option(rich_help_panel=_FUSION_DIFF, help="The number of sampled targets. Default: from the parameters."),
]
Host = Annotated[str, Option(help="The address to listen on. 0.0.0.0 lets other machines in.")]
Port = Annotated[int, Option(min=1, max=65_535, help="The port to listen on.")]
AsJson = Annotated[bool, Option("--json", rich_help_panel=_OUTPUT, help="Print one JSON object a search.")]
HtmlPath = Annotated[Path | None, Option("--html", rich_help_panel=_OUTPUT, help="Also write a page with the images.")]

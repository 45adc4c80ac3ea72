"""`cir index` and `cir libraries`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from pipeline.app.cli import options
from pipeline.app.cli.project import check_folder, check_methods, set_up
from pipeline.app.errors import report_errors
from pipeline.app.search.library_names import FOLDER, find_library, list_libraries, named
from pipeline.config import ParameterError

if TYPE_CHECKING:
    from pipeline.app.search.indexing import Indexed

app = typer.Typer()


@app.command(rich_help_panel="Search images")
@report_errors()
def index(  # noqa: PLR0913 - one argument an option
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="A folder of images, told by their content. Its subfolders are indexed too. Not needed where --name "
            "or --out is a library already.",
            show_default=False,
        ),
    ] = None,
    name: options.LibraryName = "",
    out: options.LibraryFolder = None,
    add: Annotated[
        list[Path] | None,
        Option(help="Add or update these files and folders of FOLDER alone; may be repeated. All others stay."),
    ] = None,
    remove: Annotated[
        list[str] | None,
        Option(
            help="Remove the image with this id, or those of a folder of ids; may be repeated. Files stay where they "
            "are, and the next `cir index FOLDER` finds them again."
        ),
    ] = None,
    metadata: Annotated[
        Path | None,
        Option(
            help="A .csv, .jsonl or .parquet with a column `file_name`; `cir search --where` filters by the others. "
            "Default: metadata.csv, .jsonl or .parquet in FOLDER."
        ),
    ] = None,
    method: options.IndexedMethods = None,
    encoder: options.EncoderName = "",
    params: options.ParamsPath = options.PARAMS_FILE,
) -> None:
    """Embed and index a folder of images, or bring its library up to date: only what is new or changed is embedded.

    What is left out is counted by reason: what is hidden, what leads out of the folder, and what is no image.

    An interrupted run continues where it stopped when the command is given again.
    """
    check_folder(params)
    if metadata and not os.path.isfile(metadata):
        raise ParameterError(f"{metadata}: no such file")
    root, place = _root_and_place(folder, name, out)
    if not (add or remove):
        _index(root, place, metadata, method or [], encoder, params)
    elif method or encoder:
        raise ParameterError("--add and --remove: the library knows its methods and its encoder; name none")
    else:
        _edit(root, place, add or [], remove or [], metadata, params)


@app.command(rich_help_panel="Inspect the project")
@report_errors()
def libraries() -> None:
    """List the libraries that have a name, with their folders and fields."""
    from pipeline.app.search.library import Library
    from pipeline.artifacts import ArtifactError

    found = list_libraries()
    for place in found:
        try:
            library = Library.open(place)
        except ArtifactError as error:
            typer.echo(f"{place.name}: {error}")
            continue
        fields = ", ".join(library.fields)
        typer.echo(f"{place.name}: {_images(len(library))} in {library.root}; {', '.join(library.spaces)}; {fields}")
    if not found:
        typer.echo("no library has a name; `cir index FOLDER --name NAME` gives it one")


def _root_and_place(folder: Path | None, name: str, out: Path | None) -> tuple[Path, Path]:
    """The folders of the images and of the library. Raises ParameterError where one of them is not known."""
    from pipeline.app.search.library import Library

    if name and out:
        raise ParameterError("--name and --out: a library lies in one place; give one of them")
    place = named(name) if name else out
    if folder is None:
        there = find_library(place) if place else None
        if there is None:
            what = f"{name or out}: no library" if name or out else "no folder of images is named"
            raise ParameterError(f"{what}; `cir index FOLDER` makes a library of one")
        return Library.open(there).root, there
    if not os.path.isdir(folder):
        raise ParameterError(f"{folder}: no such folder")
    return folder, place or folder / FOLDER


def _index(root: Path, place: Path, metadata: Path | None, methods: list[str], encoder: str, params: Path) -> None:
    """Make the library hold what the folder holds."""
    from pipeline.app.search.library import Library
    from pipeline.app.search.own_encoder import knows_emoji_only, parse_encoder, warning

    kept = Library.open(place).encoder if find_library(place) else None
    own = parse_encoder(encoder) if encoder else kept
    check_methods(methods, params, own)
    # Only now: what follows loads torch.
    from pipeline.app.search.indexing import index_folder

    loaded = set_up(params)
    done = index_folder(root, loaded, place, methods, own, metadata)
    _print(done)
    if done.rejected:
        typer.echo(f"`cir rejected {done.library}` lists them")
    if own is None and knows_emoji_only(loaded):
        typer.echo(warning(root))


def _edit(root: Path, place: Path, add: list[Path], remove: list[str], metadata: Path | None, params: Path) -> None:
    """Add some images to a library, and remove some."""
    from pipeline.app.search.library import Library
    from pipeline.app.search.library_edits import add_images, find_ids
    from pipeline.app.search.remedies import index_command
    from pipeline.artifacts import ArtifactError

    there = find_library(place)
    if there is None:
        raise ArtifactError(f"{place}: there is no library yet; `{index_command(root, place)}` makes it")
    library = Library.open(there)
    if library.root != root.resolve():
        raise ParameterError(f"{root}: the library in {there} is of {library.root}")
    gone = find_ids(library, remove)
    if add:
        _print(add_images(library, set_up(params), add, metadata))
    if gone:
        count = library.remove(gone)
        typer.echo(f"{there}: {_images(len(library))} in {', '.join(library.spaces)} ({count} removed)")


def _print(done: Indexed) -> None:
    from pipeline.artifacts.rejections import summarise

    changes = f"{done.added} added, {done.updated} updated, {done.removed} removed"
    typer.echo(f"{done.library}: {_images(done.images)} in {', '.join(done.spaces)} ({changes})")
    for space, reason in done.left_out.items():
        typer.echo(f"left out: {space} ({reason})")
    for line in summarise(done.rejected, "files"):
        typer.echo(line)


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"

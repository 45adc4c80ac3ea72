"""Adding some images to a library, and removing some, while all others stay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.app.search.library import Library
from pipeline.app.search.metadata import find_metadata, read_metadata
from pipeline.artifacts import ArtifactError
from pipeline.config import Params

if TYPE_CHECKING:
    from pipeline.app.search.indexing import Indexed


def add_images(library: Library, params: Params, paths: Sequence[Path], metadata: Path | None = None) -> Indexed:
    """Add or update images by the models that have embedded the others.

    Args:
        library: What is changed.
        params: Models and sizes; an encoder of the library's own takes their place.
        paths: Files and folders below the library's root.
        metadata: A table with rows for them; None: the one in the root, where there is one.

    Returns:
        What was done.

    Raises:
        ArtifactError: A path does not exist or leads out of the root, none of them holds an image, the metadata
            cannot be read, or a model was trained anew since the others were embedded.
    """
    from pipeline.app.search.indexing import Indexer  # torch, which a removal does not need
    from pipeline.query.models import Models

    table = metadata or find_metadata(library.root)
    fields = read_metadata(table) if table else {}
    models = Models(library.encoder.into(params) if library.encoder else params)
    done = Indexer(library, models).add([path for path in paths if path != table], fields)
    if done.rejected and not (done.added or done.updated or done.kept):
        first = done.rejected[0]
        raise ArtifactError(f"{library.root}: there is nothing to add: {first.id}: {first.reason}")
    return done


def find_ids(library: Library, names: Sequence[str]) -> list[str]:
    """The ids of images that a person names.

    Args:
        library: Holds the images.
        names: Ids, folders of ids, or absolute paths of either. Files need not be there any more.

    Returns:
        The ids, each once.

    Raises:
        ArtifactError: One of the names is no image of the library.
    """
    known, found = library.slot_of, dict[str, None]()
    for name in names:
        path = Path(name)
        is_below = path.is_absolute() and path.is_relative_to(library.root)
        wanted = path.relative_to(library.root).as_posix() if is_below else name.removesuffix("/")
        below = [image_id for image_id in known if image_id.startswith(f"{wanted}/")]
        if wanted not in known and not below:
            raise ArtifactError(f"{library.folder}: {name!r} is no image of this library")
        found |= dict.fromkeys([wanted] if wanted in known else below)
    return list(found)

"""`cir index`: any folder of images -> a library of vectors and indexes.

A library (FOLDER/.cir) holds `files`, the list of what was found; `vectors/<space>`, a shard set of embeddings; and
`index/<space>`. A `rejected.parquet` in the first two lists what was left out. Images are never copied. A run that was
cut off goes on behind its last whole shard as long as no image has changed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.app.search.folder_files import find_files, identity_of, images_of, is_utf8, left_out_of, list_files
from pipeline.app.search.galleries import GALLERY, LIBRARY, SIDE
from pipeline.app.search.own_encoder import OwnEncoder
from pipeline.app.search.remedies import training_command
from pipeline.artifacts import ArtifactError, ShardSet, write_json
from pipeline.artifacts.decoding import ImageError, read_image_file
from pipeline.artifacts.rejections import REJECTED, Rejected, read_rejections
from pipeline.config import Params
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import ROWS_PER_SHARD, JobOptions
from pipeline.encoders.embedding.rows import EncoderRow, UnreadableRowError, decode
from pipeline.encoders.embedding.vectors import embedding_job
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.query import registry
from pipeline.query.interface import Method
from pipeline.query.models import Models
from pipeline.query.spaces import ModelSpace
from pipeline.retrieval import build_index


@dataclass
class Indexed:
    """What `index_folder` did."""

    library: Path
    images: int = 0
    """Images that were embedded."""
    rejected: list[Rejected] = field(default_factory=list)
    """Files that are no images, or cannot be read as such."""
    spaces: list[str] = field(default_factory=list)
    """Those that have an index now."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Space -> why it has no index."""


def index_folder(
    folder: Path,
    params: Params,
    out: Path | None = None,
    methods: Collection[str] = (),
    encoder: OwnEncoder | None = None,
) -> Indexed:
    """Embed and index every image below a folder.

    Args:
        folder: Holds the images. They stay where they are.
        params: Models and index.
        out: The library; None: `.cir` in the folder.
        methods: The methods that will be asked for; none: the usual ones, as far as they are trained.
        encoder: Takes the place of all models that `params` names; the library keeps its name.

    Returns:
        What was done.

    Raises:
        ArtifactError: There is no folder, no image, or none that can be read; or a model is missing.
        ParameterError: There is no such method.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder")
    library = out or folder / LIBRARY
    if not is_utf8(library):
        raise ArtifactError(f"{ascii(str(library))}: the name is not UTF-8, which indexes need; give --out another one")
    params = encoder.into(params) if encoder else params
    spaces = spaces_of(methods or usual_methods(params), params)
    untrained = {name: _untrained(space.missing) for name, space in spaces.items() if space.missing}
    if methods and untrained:
        raise ArtifactError("; ".join(untrained.values()))
    found = find_files(folder, library)
    if not found:
        raise ArtifactError(f"{folder}: there is no image: the folder is empty")
    (library / GALLERY).unlink(missing_ok=True)  # until the library is whole again
    files = list_files(folder, found, library / "files")
    images, left_out = images_of(files), left_out_of(files)
    if not images:
        first = left_out[0]
        raise ArtifactError(
            f"{folder}: there is no image among {len(left_out)} files (first: {first.id}: {first.reason})"
        )
    made_of = {"files": identity_of(images), **({"encoder": str(encoder)} if encoder else {})}
    drop_stale(library, spaces, made_of)
    done = Indexed(library)
    for name, space in spaces.items():
        if name in untrained:
            done.left_out[name] = untrained[name]
            continue
        embed_folder(FolderReader(folder, images), space, params, library / "vectors" / name, made_of)
        build_index(library / "vectors" / name, library / "index" / name, params.index, params.runtime.threads)
        done.spaces.append(name)
    root = os.path.relpath(folder.resolve(), library.resolve())
    own = {"encoder": {"name": encoder.name, "pretrained": encoder.pretrained}} if encoder else {}
    write_json(library / GALLERY, {"root": root, **own})  # last: now the library is whole
    undecoded = [*read_rejections(path)] if (path := library / "vectors" / done.spaces[0] / REJECTED).is_file() else []
    done.rejected, done.images = left_out + undecoded, len(images) - len(undecoded)
    return done


def _untrained(weights: Path) -> str:
    return f"{weights} is not trained yet; `{training_command([weights])}` does it"


def usual_methods(params: Params) -> list[str]:
    """The methods that a folder is indexed for unless told otherwise.

    They are those without training and, of every group, the featured ones, or the last one where none is featured.
    """
    configured = registry.methods(params)
    groups: dict[str, list[Method]] = {}
    for method in sorted(configured.values(), key=lambda method: method.order):
        groups.setdefault(method.group, []).append(method)
    usual = [method for members in groups.values() for method in _featured(members)]
    return [name for name, method in configured.items() if method in usual or not method.weights]


def _featured(members: Sequence[Method]) -> Sequence[Method]:
    return [method for method in members if method.featured] or members[-1:]


def spaces_of(methods: Collection[str], params: Params) -> dict[str, ModelSpace]:
    """The spaces that methods search, by name. Raises ParameterError naming an unknown method."""
    wanted = {registry.find_method(name, params).space for name in methods}
    return {name: space for name, space in registry.spaces(Models(params)).items() if name in wanted}


def drop_stale(library: Path, spaces: Collection[str], made_of: dict[str, str]) -> None:
    """Remove what an earlier run made of other files, in spaces that this run does not make anew."""
    for vectors in (library / "vectors").glob("*"):
        if vectors.name not in spaces and not is_made_of(vectors, made_of):
            shutil.rmtree(vectors)
            shutil.rmtree(library / "index" / vectors.name, ignore_errors=True)


def is_made_of(vectors: Path, made_of: dict[str, str]) -> bool:
    """Whether a finished shard set says so."""
    try:
        ShardSet.open(vectors, made_of, verify=False)
    except ArtifactError:
        return False
    return True


class FolderReader:
    """Rows of the images in a folder; what is wrong with one is found when it is decoded.

    Args:
        folder: Holds the images.
        images: Rows of `FILES`.
    """

    def __init__(self, folder: Path, images: Sequence[dict[str, Any]]):
        self._folder, self._ids = folder, [image["image_id"] for image in images]

    def __len__(self) -> int:
        return len(self._ids)

    def rows(self, start: int) -> Iterator[EncoderRow]:
        for image_id in self._ids[start:]:
            encoded, reason = b"", ""
            try:
                encoded = read_image_file(self._folder / image_id)
            except ImageError as error:
                reason = str(error)
            yield EncoderRow(image_id, "", encoded, image_id, reason)


def decode_reduced(row: EncoderRow) -> MllmInput:
    """As `pipeline.encoders.embedding.rows.decode`, at a bounded size. Raises UnreadableRowError with the reason."""
    if row.note:
        raise UnreadableRowError(row.note)
    return decode(row, SIDE)


def embed_folder(reader: FolderReader, space: ModelSpace, params: Params, out: Path, made_of: dict[str, Any]) -> None:
    """Embed every readable image of a folder into one space.

    Args:
        reader: The images.
        space: Opens the model.
        params: Holds the batch size.
        out: Where the shard set of vectors goes.
        made_of: What identifies the images.

    Raises:
        ArtifactError: No image can be read.
    """
    job = embedding_job(space.embedder, decode_reduced)
    options = JobOptions(params.embedder.batch_size, ROWS_PER_SHARD, max_rejected_share=1.0)
    run_job(reader, job, out, space.identity | made_of, options)
    if not ShardSet.open(out, verify=False).rows:
        raise ArtifactError(f"{out}: none of {len(reader)} images can be read; `cir rejected {out}` says why")

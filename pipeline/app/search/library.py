"""`cir index`: any folder of images -> a library of vectors and indexes.

A library (FOLDER/.cir) holds `files`, the list of what was found; `vectors/<space>`, a shard set of
embeddings with `rejected.parquet` beside it; and `index/<space>`. Images are never copied. A run
that was cut off goes on behind its last whole shard as long as no file has changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from pipeline.app.search.galleries import GALLERY, LIBRARY, SIDE
from pipeline.artifacts import ArtifactError, ShardSet, sha256_file, write_json, write_table
from pipeline.artifacts.decoding import ImageError, read_image_file
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import Params
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import ROWS_PER_SHARD, JobOptions
from pipeline.encoders.embedding.rejected import REJECTED, rejected_images
from pipeline.encoders.embedding.rows import EncoderRow, UnreadableRowError, decode
from pipeline.encoders.embedding.vectors import embedding_job
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.query import registry
from pipeline.query.models import Models
from pipeline.query.spaces import ModelSpace
from pipeline.retrieval import build_index

SUFFIXES = frozenset([".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"])
FILES = pa.schema([("image_id", pa.string()), ("size", pa.int64()), ("blake2b", pa.string()), ("reason", pa.string())])


@dataclass
class Indexed:
    """What `index_folder` did."""

    library: Path
    images: int = 0
    """Images that were embedded."""
    rejected: int = 0
    """Files that cannot be read as images."""
    spaces: list[str] = field(default_factory=list)
    """Those that have an index now."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Space -> why it has no index."""

    @property
    def rejections(self) -> Path:
        """The table of the rejected files."""
        return self.library / "vectors" / self.spaces[0] / REJECTED


def index_folder(folder: Path, params: Params, out: Path | None = None, methods: Collection[str] = ()) -> Indexed:
    """Embed and index every image below a folder.

    Args:
        folder: Holds the images. They stay where they are.
        params: Models and index.
        out: The library; None: `.cir` in the folder.
        methods: The methods that will be asked for; none: the usual ones, as far as they are trained.

    Returns:
        What was done.

    Raises:
        ArtifactError: There is no folder, no image, or none that can be read; or a model is missing.
        ParameterError: There is no such method.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder")
    library = out or folder / LIBRARY
    spaces = spaces_of(methods or usual_methods(params), params)
    paths = find_images(folder)
    if not paths:
        raise ArtifactError(f"{folder}: there is no image ({', '.join(sorted(SUFFIXES))})")
    (library / GALLERY).unlink(missing_ok=True)  # until the library is whole again
    files = list_files(folder, paths, library / "files")
    made_of = {"files": sha256_file(files.folder / MANIFEST)}
    drop_stale(library, spaces, made_of)
    done = Indexed(library)
    for name, space in spaces.items():
        if not methods and space.missing:
            done.left_out[name] = f"{space.missing} is not trained yet; `dvc repro train_diffcomp` does it"
            continue
        embed_folder(FolderReader(folder, files), space, params, library / "vectors" / name, made_of)
        build_index(library / "vectors" / name, library / "index" / name, params.index, params.runtime.threads)
        done.spaces.append(name)
    root = os.path.relpath(folder.resolve(), library.resolve())
    write_json(library / GALLERY, {"root": root})  # last: now the library is whole
    done.rejected = len(rejected_images(library / "vectors" / done.spaces[0]))
    done.images = files.rows - done.rejected
    return done


def usual_methods(params: Params) -> list[str]:
    """The methods that a folder is indexed for unless told otherwise: the featured ones, and those without training."""
    return [name for name, method in registry.methods(params).items() if method.featured or not method.weights]


def spaces_of(methods: Collection[str], params: Params) -> dict[str, ModelSpace]:
    """The spaces that methods search, by name. Raises ParameterError naming an unknown method."""
    wanted = {registry.find_method(name, params).space for name in methods}
    return {name: space for name, space in registry.spaces(Models(params)).items() if name in wanted}


def find_images(folder: Path) -> list[Path]:
    """Files with an image's suffix, in order of their path below `folder`; nothing hidden, and no linked folder."""
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(where, name) for name in names if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def list_files(folder: Path, paths: Sequence[Path], out: Path) -> ShardSet:
    """What was found, as a shard set of `FILES`."""
    rows = [describe_file(folder, path) for path in tqdm(paths, "listing", unit="file", mininterval=1.0)]
    write_table(out, pa.Table.from_pylist(rows, schema=FILES), {})
    return ShardSet.open(out)


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


def describe_file(folder: Path, path: Path) -> dict[str, Any]:
    """One row of `FILES`: content hash, and the reason why a file is not even opened."""
    name = path.relative_to(folder).as_posix()
    image_id = name.encode("utf-8", "replace").decode()
    row = {"image_id": image_id, "size": 0, "blake2b": "", "reason": ""}
    if image_id != name:
        return row | {"reason": "its name is not UTF-8"}
    if not path.resolve().is_relative_to(folder.resolve()):
        return row | {"reason": "a link that leads out of the folder"}
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        return row | {"size": path.stat().st_size, "blake2b": digest}
    except OSError as error:
        return row | {"reason": f"the file cannot be read: {error.strerror}"}


class FolderReader:
    """Rows of the files listed in a `FILES` shard set; what is wrong with one is found when it is decoded."""

    def __init__(self, folder: Path, files: ShardSet):
        self._folder = folder
        self._files = files.table(["image_id", "reason"]).to_pylist()

    def __len__(self) -> int:
        return len(self._files)

    def rows(self, start: int) -> Iterator[EncoderRow]:
        for file in self._files[start:]:
            encoded, reason = b"", file["reason"]
            if not reason:
                try:
                    encoded = read_image_file(self._folder / file["image_id"])
                except ImageError as error:
                    reason = str(error)
            yield EncoderRow(file["image_id"], "", encoded, file["image_id"], reason)


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
    options = JobOptions(params.encoder.batch_size, ROWS_PER_SHARD, max_rejected_share=1.0)
    run_job(reader, job, out, space.identity | made_of, options)
    if not ShardSet.open(out, verify=False).rows:
        raise ArtifactError(f"{out}: none of {len(reader)} files can be read as an image; {REJECTED} says why")

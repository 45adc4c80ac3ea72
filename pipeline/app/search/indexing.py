"""`cir index`: images below a folder -> a library, of which only what is new or changed is embedded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline.app.search.folder_files import HIDDEN, OUTSIDE, FoundFile, describe_file, find_files, hash_of, is_utf8
from pipeline.app.search.galleries import SIDE
from pipeline.app.search.library import Library
from pipeline.app.search.library_names import FOLDER
from pipeline.app.search.library_rows import Entry
from pipeline.app.search.metadata import find_metadata, read_metadata
from pipeline.app.search.own_encoder import OwnEncoder
from pipeline.app.search.remedies import index_command, training_command
from pipeline.artifacts import ArtifactError, write_atomically
from pipeline.artifacts.atomic import as_stored
from pipeline.artifacts.decoding import ImageError, read_image_file
from pipeline.artifacts.rejections import REJECTED, Rejected
from pipeline.config import Params
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.rows import EncoderRow, UnreadableRowError, decode
from pipeline.encoders.embedding.slices import encode_slices
from pipeline.encoders.embedding.vectors import embedding_job
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.query import registry
from pipeline.query.interface import Method
from pipeline.query.models import Models
from pipeline.query.spaces import ModelSpace

ROWS_AT_ONCE = 500
"""Images whose vectors are stored together: bounds what a killed run loses."""


@dataclass
class Indexed:
    """What became of a library."""

    library: Path
    images: int = 0
    """How many it holds now."""
    added: int = 0
    updated: int = 0
    """Images whose content or metadata is another one now."""
    kept: int = 0
    """Images that are as they were."""
    removed: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    """Files that are no images, or cannot be read as such."""
    spaces: list[str] = field(default_factory=list)
    """Those that can be searched."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Space -> why it cannot."""


def index_folder(
    folder: Path,
    params: Params,
    out: Path | None = None,
    methods: Collection[str] = (),
    encoder: OwnEncoder | None = None,
    metadata: Path | None = None,
) -> Indexed:
    """Make a library hold exactly the images below a folder.

    Args:
        folder: Holds the images. They stay where they are.
        params: Models and index.
        out: The library's folder; None: `.cir` in the folder.
        methods: The methods that will be asked for; none: the usual ones, as far as they are trained.
        encoder: Takes the place of all models that `params` names; the library keeps its name.
        metadata: See `Indexer.update`.

    Returns:
        What was done.

    Raises:
        ArtifactError: There is no folder, no image, or none that can be read; or a model is missing.
        ParameterError: There is no such method.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder")
    place = out or folder / FOLDER
    if not is_utf8(place):
        raise ArtifactError(f"{ascii(str(place))}: the name is not UTF-8, which libraries need; give --out another one")
    params = encoder.into(params) if encoder else params
    spaces = spaces_of(methods or usual_methods(params), params)
    untrained = {name: _untrained(space.missing) for name, space in spaces.items() if space.missing}
    if methods and untrained:
        raise ArtifactError("; ".join(untrained.values()))
    found = find_files(folder.resolve(), place)
    if not found:
        raise ArtifactError(f"{folder}: there is no image: the folder is empty")
    library = Library.create(place, folder, encoder)
    wanted = [space for name, space in spaces.items() if name not in untrained]
    indexer = Indexer(library, Models(params), wanted)
    indexer.encoder = encoder
    done = indexer.update(found, metadata)
    library.close()
    done.left_out = untrained
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


class Indexer:
    """Brings images into a library, together with the models that embed them.

    Args:
        library: What is changed.
        models: The models, such as a `Searcher`'s.
        spaces: What to embed into besides the library's own spaces; none: those alone.
        guard: Held while models compute, one batch after the other, for models that others use, too.

    Attributes:
        encoder: What the models stand for, as the library remembers it; None: those of the parameters.
    """

    def __init__(
        self,
        library: Library,
        models: Models,
        spaces: Iterable[ModelSpace] = (),
        guard: AbstractContextManager[Any] | None = None,
    ):
        self.library, self._models, self._guard = library, models, guard or nullcontext()
        self.encoder = library.encoder
        present, configured = library.spaces, registry.spaces(models)
        kept = [
            space
            for name, space in configured.items()
            if name in present and present[name] == as_stored(space.identity)
        ]
        self._asked = {space.name for space in spaces}
        self._spaces = {space.name: space for space in [*kept, *spaces]}

    def update(self, found: Iterable[FoundFile] | None = None, metadata: Path | None = None) -> Indexed:
        """Make the library hold exactly what is below its root.

        Args:
            found: The files below the root; None: they are looked for.
            metadata: A CSV, JSONL or Parquet file with a column `file_name`; None: `metadata.csv`, `.jsonl` or
                `.parquet` in the root, where there is one.

        Returns:
            What was done.

        Raises:
            ArtifactError: No image can be read, or the metadata cannot.
        """
        root, known = self.library.root, {entry.id: entry for entry in self.library.entries()}
        metadata = metadata or find_metadata(root)
        given = read_metadata(metadata) if metadata else {}
        found = find_files(root, self.library.folder) if found is None else list(found)
        done = self._bring(self._entries(root, found, known, metadata), known, given)
        stray = [name for name in given if name not in self.library]
        listed = {one.id for one in done.rejected}
        reason = f"{metadata.name if metadata else ''} names it, but it is no image of the library"
        done.rejected += [Rejected(name, reason) for name in stray if name not in listed]
        self._list(done.rejected)
        return done

    def add(self, paths: Iterable[Path], fields: Mapping[str, Mapping[str, Any]] | None = None) -> Indexed:
        """Add or update some files, or all files below some folders. What else there is stays.

        Args:
            paths: They lie below the library's root.
            fields: Id -> metadata, which replaces what the image had.

        Returns:
            What was done. When this returns, it is on the disk.

        Raises:
            ArtifactError: A path does not exist, or leads out of the root; metadata does not fit; or the other images
                were embedded by other models.
        """
        root, own = self.library.root, self.library.encoder
        own_spaces = {name: as_stored(space.identity) for name, space in self._spaces.items()}
        if stale := [name for name, identity in self.library.spaces.items() if own_spaces.get(name) != identity]:
            command = index_command(root, self.library.folder, encoder=own)
            raise ArtifactError(
                f"{self.library.folder}: {min(stale)} was embedded by other models than the present ones; `{command}` "
                "embeds all images anew"
            )
        found = [file for path in paths for file in self._found(Path(path), root)]
        names = [file.path.relative_to(root).as_posix() for file in found]
        known = {entry.id: entry for entry in self.library.entries([name for name in names if name in self.library])}
        return self._bring(self._entries(root, found, known), known, fields or {}, removes=False)

    def _found(self, path: Path, root: Path) -> list[FoundFile]:
        path = path.resolve() if path.is_dir() else path.parent.resolve() / path.name
        if not path.is_relative_to(root):
            raise ArtifactError(f"{path}: not below {root}, the folder of this library")
        if not path.resolve().is_relative_to(root):
            raise ArtifactError(f"{path}: {OUTSIDE} {root}")
        if not path.exists():
            raise ArtifactError(f"{path}: no such file")
        if any(part.startswith(".") for part in path.relative_to(root).parts):
            return [FoundFile(path, HIDDEN)]
        return find_files(path, self.library.folder, root)

    def _entries(
        self, root: Path, found: Sequence[FoundFile], known: Mapping[str, Entry], metadata: Path | None = None
    ) -> Iterator[Entry | Rejected]:
        """What the files are. One whose size and time are those of its entry is not read again."""
        for file in tqdm(found, "listing", unit="file", mininterval=1.0, disable=len(found) < ROWS_AT_ONCE):
            if metadata and file.path.name == metadata.name and file.path.resolve() == metadata.resolve():
                continue
            status = file.path.stat() if not file.reason else None
            entry = known.get(file.path.relative_to(root).as_posix()) if status else None
            if status and entry and (entry.size, entry.modified) == (status.st_size, status.st_mtime_ns):
                yield entry
                continue
            row = describe_file(root, file)
            if row["reason"]:
                yield Rejected(row["image_id"], row["reason"])
            else:
                fields = entry.fields if entry else {}
                yield Entry(row["image_id"], row["blake2b"], row["size"], status.st_mtime_ns if status else 0, fields)

    def _bring(
        self,
        files: Iterable[Entry | Rejected],
        known: Mapping[str, Entry],
        fields: Mapping[str, Mapping[str, Any]],
        removes: bool = True,
    ) -> Indexed:
        images: list[Entry] = []
        done = Indexed(self.library.folder)
        for file in files:
            if isinstance(file, Rejected):
                done.rejected.append(file)
            else:
                images.append(replace(file, fields=fields[file.id]) if file.id in fields else file)
        if removes and not images:
            first = done.rejected[0]
            count = f"{len(done.rejected)} files (first: {first.id}: {first.reason})"
            raise ArtifactError(f"{self.library.root}: there is no image among {count}")
        identities = {}
        spaces = dict(self._spaces)
        for name, space in spaces.items():
            identities[name] = as_stored(space.identity)
            unread = self._embed(space, images)
            done.rejected += unread
            images = [image for image in images if image.id not in {one.id for one in unread}]
        if removes and not images:
            self._list(done.rejected)
            place = self.library.folder
            raise ArtifactError(
                f"{place}: none of {len(done.rejected)} images can be read; `cir rejected {place}` says why"
            )
        here = {image.id for image in images}
        gone = [name for name in known if name not in here]
        changed = [image for image in images if image != known.get(image.id)]
        is_other = self.encoder != self.library.encoder
        stale = set(self.library.spaces) - set(spaces) if changed or is_other else set()
        new = {name: identity for name, identity in identities.items() if self.library.spaces.get(name) != identity}
        if changed or gone or new or is_other:
            self.library.commit(changed, gone, new, stale, self.encoder)
        done.added = sum(image.id not in known for image in changed)
        done.updated, done.removed = len(changed) - done.added, len(gone)
        done.kept = len(images) - len(changed)
        done.images, done.spaces = len(self.library), sorted(self.library.spaces)
        return done

    def _embed(self, space: ModelSpace, images: Sequence[Entry]) -> list[Rejected]:
        """Store the vectors of the contents that have none, and tell which images cannot be read."""
        store = self.library.store_for(space.name, as_stored(space.identity))
        by_hash: dict[str, Entry] = {image.hash: image for image in reversed(images)}
        todo = [by_hash[content] for content in self.library.without_vector(store, [one.hash for one in images])]
        if not todo:
            return []
        reader, rejected = ImageFiles(self.library.root, todo), []
        job = embedding_job(_Guarded(space.embedder, self._guard), decode_reduced)
        options = JobOptions(self._models.params.embedder.batch_size, ROWS_AT_ONCE, max_rejected_share=1.0)
        hashes = {image.id: image.hash for image in todo}
        with tqdm(total=len(todo), desc=space.name, unit="image", mininterval=5.0) as progress:
            for part in encode_slices(reader, job, 0, options):
                rejected += [(hashes[entry["id"]], entry["reason"]) for entry in part.rejected]
                if part.table is not None:
                    vectors = (
                        part.table["vector"].combine_chunks().flatten().to_numpy().reshape(part.table.num_rows, -1)
                    )
                    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
                    self.library.store_vectors(store, [hashes[name] for name in part.table["id"].to_pylist()], vectors)
                progress.update(part.rows)
        reasons = dict(rejected)
        return [Rejected(image.id, reasons[image.hash]) for image in images if image.hash in reasons]

    def _list(self, rejected: Sequence[Rejected]) -> None:
        """Write what is left out where `cir rejected` finds it."""
        path = self.library.folder / REJECTED
        if not rejected:
            path.unlink(missing_ok=True)
            return
        rows = [{"image_id": one.id, "reason": one.reason} for one in rejected]
        with write_atomically(path) as aside:
            pq.write_table(pa.Table.from_pylist(rows), aside)


class _Guarded:
    """An embedder that others use, too: held for one batch at a time."""

    def __init__(self, embedder: Any, guard: AbstractContextManager[Any]):
        self._embedder, self._guard, self.dim = embedder, guard, embedder.dim

    def embed(self, inputs: Sequence[MllmInput]) -> np.ndarray:
        with self._guard:
            return self._embedder.embed(inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)


class ImageFiles:
    """Rows of images in a folder; what is wrong with one is found when it is decoded.

    Args:
        root: The folder.
        images: Which ones.
    """

    def __init__(self, root: Path, images: Sequence[Entry]):
        self._root, self._images = root, images

    def __len__(self) -> int:
        return len(self._images)

    def rows(self, start: int) -> Iterator[EncoderRow]:
        for image in self._images[start:]:
            encoded, reason = b"", ""
            try:
                encoded = read_image_file(self._root / image.id)
                if hash_of(encoded) != image.hash:
                    reason = "the file was changed while it was read"
            except ImageError as error:
                reason = str(error)
            yield EncoderRow(image.id, "", encoded, image.id, reason)


def decode_reduced(row: EncoderRow) -> MllmInput:
    """As `pipeline.encoders.embedding.rows.decode`, at a bounded size. Raises UnreadableRowError with the reason."""
    if row.note:
        raise UnreadableRowError(row.note)
    return decode(row, SIDE)

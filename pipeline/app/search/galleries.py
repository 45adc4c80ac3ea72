"""What is searched: the images of a benchmark, or a folder that `cir index` has indexed.

A gallery opens without torch, so that a wrong name is told at once.
"""

from __future__ import annotations

import functools
import os
import shlex
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from pipeline.app.search.library import Library
from pipeline.app.search.library_names import FOLDER, find_library
from pipeline.app.search.names import emoji_names
from pipeline.app.search.own_encoder import DEFAULT_METHOD, EMOJI_ONLY, OwnEncoder, knows_emoji_only, warning
from pipeline.app.search.remedies import index_command
from pipeline.artifacts import ArtifactError, ShardSet
from pipeline.artifacts.atomic import as_stored
from pipeline.artifacts.decoding import ImageError, decode_file
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import Params
from pipeline.retrieval.filters import FieldKind, FilterError, parse_filter

if TYPE_CHECKING:
    from pipeline.app.search.library_index import LibraryIndex
    from pipeline.app.search.library_milvus import MilvusLibraryIndex
    from pipeline.encoders.image_source import ImageTable
    from pipeline.retrieval import Index
    from pipeline.retrieval.spaces import Space

BENCHMARKS, BENCHMARK_INDEXES = Path("data/benchmarks"), Path("data/index")
DEFAULT_BENCHMARK = "emoji_cir"
SIDE = 1024
"""Longer side, in pixels, to which images of people's own are reduced as they are read: it bounds a batch."""


PLACEHOLDER_SIDE = 240
"""Both sides, in pixels, of what stands for an image that is gone."""


@dataclass(frozen=True)
class ShownImage:
    """A gallery's image as results show it."""

    image: Image.Image
    """RGB; a placeholder for an image that is gone."""
    is_gone: bool = False
    """The image was removed, or cannot be read any more, since it was indexed."""


class Gallery(ABC):
    """Images with ids, and the indexes over them."""

    name: str
    encoder: OwnEncoder | None = None
    """What it was embedded with in the place of the parameters' models; None: with those."""

    def __contains__(self, image_id: object) -> bool:
        """Whether one of the images has this id."""
        return image_id in self._known

    @functools.cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.ids)

    @property
    @abstractmethod
    def ids(self) -> list[str]:
        """The images' ids."""

    @property
    def default_method(self) -> str:
        """What a search takes unless a method is named."""
        return DEFAULT_METHOD if self.encoder else "fusion_diff"

    def warns(self, params: Params) -> bool:
        """Whether these are people's own images behind models that know emoji only."""
        return False

    def note(self, params: Params) -> str:
        """What whoever searches should know of the models; "" where there is nothing to say."""
        if self.warns(params):
            return warning(self.name)
        return EMOJI_ONLY if self.encoder is None and knows_emoji_only(params) else ""

    def name_of(self, image_id: str) -> str:
        """What an image is called, to stand beside its id. "" where the id is all there is, as for files."""
        return ""

    def path(self, image_id: str) -> Path | None:
        """The file of an image; None where images are no files."""
        return None

    @abstractmethod
    def image(self, image_id: str) -> Image.Image:
        """One of the images.

        Args:
            image_id: Its id in this gallery.

        Returns:
            The image, RGB.

        Raises:
            ArtifactError: When the gallery has no such image, or it cannot be read.
        """

    def is_as_indexed(self, image_id: str) -> bool:
        """Whether one of the gallery's images is the one whose vectors the indexes hold."""
        return image_id in self

    def shown(self, image_id: str) -> ShownImage:
        """One of the images, or a placeholder: one image that is gone does not end a page of results."""
        try:
            return ShownImage(self.image(image_id))
        except ArtifactError:
            return ShownImage(placeholder(), is_gone=True)

    @abstractmethod
    def id_of(self, path: Path) -> str | None:
        """The id of a file's image. None when the file is not one of this gallery's."""

    @abstractmethod
    def index_command(self, method: str) -> str:
        """The command that makes the index that a method searches."""

    @property
    @abstractmethod
    def spaces(self) -> list[str]:
        """The names of the spaces that have an index."""

    @property
    def fields(self) -> dict[str, FieldKind]:
        """The fields of metadata that a search may filter by, and their kinds."""
        return {}

    def check_filter(self, where: str) -> None:
        """Raise FilterError unless a filter can be read and names fields of these images; "" is no filter."""
        if where and not self.fields:
            raise FilterError(f"filter: the images of {self.name} have no metadata; `cir index FOLDER` gives some")
        if where:
            parse_filter(where, self.fields)

    @abstractmethod
    def index(self, space: Space, params: Params) -> Index:
        """What is searched.

        Args:
            space: What the queries are embedded in, one of `spaces`.
            params: Hold the kind of index and the number of threads.

        Returns:
            The index. It may be kept by the gallery, and changed; ask for it before every search.

        Raises:
            ArtifactError: It is missing or damaged, or another model embedded the images.
        """


class BenchmarkGallery(Gallery):
    """The images of a benchmark that the pipeline has prepared and indexed."""

    def __init__(self, name: str = DEFAULT_BENCHMARK):
        """Open the gallery. Raises ArtifactError when the benchmark has no images or no index."""
        self.name, self._folder = name, BENCHMARK_INDEXES / name
        if not (self._folder.is_dir() and (BENCHMARKS / name / "images" / MANIFEST).is_file()):
            raise ArtifactError(_no_benchmark(name))
        self._ids = ShardSet.open(BENCHMARKS / name / "images").table(["image_id"])["image_id"].to_pylist()
        self._indexes: dict[str, Index] = {}

    @property
    def ids(self) -> list[str]:
        """See `Gallery.ids`."""
        return self._ids

    @property
    def spaces(self) -> list[str]:
        """See `Gallery.spaces`."""
        return sorted(path.parent.name for path in self._folder.glob(f"*/{MANIFEST}"))

    def index(self, space: Space, params: Params) -> Index:
        """See `Gallery.index`."""
        from pipeline.retrieval.spaces import open_index

        if space.name not in self._indexes:
            self._indexes[space.name] = open_index(self._folder, space, params.runtime.threads)
        return self._indexes[space.name]

    @functools.cached_property
    def _images(self) -> ImageTable:
        from pipeline.encoders.image_source import ImageTable

        return ImageTable(BENCHMARKS / self.name / "images")

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        return emoji_names(BENCHMARKS / self.name / "images")

    def name_of(self, image_id: str) -> str:
        """See `Gallery.name_of`. The ids of emoji are TEAM/CODE."""
        return self._names.get(image_id.rpartition("/")[2], "")

    def image(self, image_id: str) -> Image.Image:
        """See `Gallery.image`."""
        return self._images.image(image_id)

    def id_of(self, path: Path) -> str | None:
        """None: a benchmark's images are not files."""
        return None

    def index_command(self, method: str) -> str:
        """See `Gallery.index_command`. The stage makes the indexes of all methods."""
        return "dvc repro build_index"


class FolderGallery(Gallery):
    """A folder of images, which are read where they are. Their ids are paths below the folder.

    Only images that were indexed are read, and none through a link that leads out of the folder.
    """

    def __init__(self, library: Library | Path):
        """Open the library that `cir index` has written. Raises ArtifactError when no space of it is whole."""
        self.library = library if isinstance(library, Library) else Library(library)
        self.root, self.encoder = self.library.root, self.library.encoder
        self.name, folder = self.root.name or "images", self.library.folder
        if not self.spaces:
            raise ArtifactError(f"{folder}: there is no finished index; `{index_command(self.root, folder)}` makes it")
        if self.ids and not any(os.path.isfile(self.root / image_id) for image_id in self.ids):
            raise ArtifactError(_moved(folder, self.root))
        self._read_recent = functools.lru_cache(maxsize=256)(self._read)
        self._indexes: dict[str, LibraryIndex | MilvusLibraryIndex] = {}

    def __contains__(self, image_id: object) -> bool:
        """See `Gallery.__contains__`."""
        return image_id in self.library

    @property
    def ids(self) -> list[str]:
        """The images' ids; it follows the library's changes."""
        return self.library.ids

    @property
    def spaces(self) -> list[str]:
        """See `Gallery.spaces`."""
        return sorted(self.library.spaces)

    @property
    def fields(self) -> dict[str, FieldKind]:
        """See `Gallery.fields`."""
        return self.library.fields

    def index(self, space: Space, params: Params) -> Index:
        """See `Gallery.index`. It follows the library's changes."""
        from pipeline.app.search.library_index import open_library_index

        found, wanted = self.library.spaces[space.name], as_stored(space.identity)
        for key, expected in wanted.items():
            if found.get(key) != expected:
                was = f"its images were embedded with {key} = {found.get(key)!r}, the queries are with {expected!r}"
                raise ArtifactError(f"{self.library.folder}: {space.name}: {was}")
        if space.name not in self._indexes:
            threads = params.runtime.threads
            self._indexes[space.name] = open_library_index(self.library, space.name, params.index, threads)
        self._indexes[space.name].refresh()
        return self._indexes[space.name]

    def path(self, image_id: str) -> Path:
        """See `Gallery.path`."""
        return self.root / image_id

    def image(self, image_id: str) -> Image.Image:
        """See `Gallery.image`. At most `SIDE` pixels long; the last images stay in memory."""
        if image_id not in self.library:
            raise ArtifactError(f"{self.name}: {image_id!r} is no image of this gallery")
        return self._read_recent(image_id, self.library.entries([image_id])[0].hash)

    def _read(self, image_id: str, content: str) -> Image.Image:
        path = (self.root / image_id).resolve()
        if not path.is_relative_to(self.root):
            raise ArtifactError(f"{self.name}: {image_id!r} leads out of the gallery")
        try:
            return decode_file(path, SIDE)
        except ImageError as error:
            command = index_command(self.root, self.library.folder, (), self.encoder)
            again = f"if it was removed or changed, run `{command}`"
            raise ArtifactError(f"{self.name}: {image_id!r}: {error}; {again}") from None

    def is_as_indexed(self, image_id: str) -> bool:
        """See `Gallery.is_as_indexed`. A file that was written since is another image."""
        try:
            found = (self.root / image_id).stat()
            entry = self.library.entries([image_id])[0]
        except (OSError, ArtifactError, IndexError, ValueError):
            return False
        return (found.st_size, found.st_mtime_ns) == (entry.size, entry.modified)

    def index_command(self, method: str) -> str:
        """See `Gallery.index_command`."""
        return index_command(self.root, self.library.folder, [method], self.encoder)

    def warns(self, params: Params) -> bool:
        """See `Gallery.warns`."""
        return self.encoder is None and knows_emoji_only(params)

    def id_of(self, path: Path) -> str | None:
        """See `Gallery.id_of`."""
        path = path.resolve()
        name = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else None
        return name if name in self.library else None


def _no_benchmark(name: str) -> str:
    """Why there is no index of this name: none was made yet, or it is the name of something else."""
    if name == DEFAULT_BENCHMARK:
        makers = "`dvc repro` makes it, `cir index FOLDER` one of your own images"
        return f"{BENCHMARK_INDEXES / name}: there is no index yet; {makers}"
    there = ", ".join(sorted(path.name for path in BENCHMARK_INDEXES.glob("*"))) or "none is indexed yet"
    return f"gallery {name!r}: no such folder, no library of this name (`cir libraries`), no benchmark ({there})"


def _moved(library: Path, root: Path) -> str:
    command = f"cir index FOLDER --out {shlex.quote(str(library))}"
    return f"{library}: none of its images is in {root} any more; after a move, `{command}` embeds nothing anew"


def placeholder() -> Image.Image:
    """What stands for an image that is gone: a grey square that is crossed out."""
    last = PLACEHOLDER_SIDE - 1
    image = Image.new("RGB", (PLACEHOLDER_SIDE, PLACEHOLDER_SIDE), "#dddddd")
    draw = ImageDraw.Draw(image)
    for corners in ((0, 0, last, last), (0, last, last, 0)):
        draw.line(corners, fill="#999999", width=3)
    return image


def open_gallery(where: str | Path | None = None) -> Gallery:
    """Open a gallery.

    Args:
        where: A folder that was indexed, its library folder, the name of a library or of a benchmark. None: the
            default benchmark.

    Returns:
        The gallery.

    Raises:
        ArtifactError: When the folder or the benchmark has no index.
    """
    if where is None:
        return BenchmarkGallery()
    library = find_library(where)
    if library:
        return FolderGallery(library)
    folder = Path(where)
    if folder.is_dir():
        raise ArtifactError(f"{folder}: not indexed yet; run `{index_command(folder, folder / FOLDER)}`")
    return BenchmarkGallery(str(where))

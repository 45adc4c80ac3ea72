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

from pipeline.app.search.names import emoji_names
from pipeline.app.search.own_encoder import DEFAULT_METHOD, EMOJI_ONLY, OwnEncoder, knows_emoji_only, warning
from pipeline.app.search.remedies import index_command
from pipeline.artifacts import ArtifactError, ShardSet, read_json
from pipeline.artifacts.decoding import ImageError, decode_file
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import Params

if TYPE_CHECKING:
    from pipeline.encoders.image_source import ImageTable

LIBRARY, GALLERY = ".cir", "gallery.json"
"""The library folder in a folder of images, and the file in it that `cir index` writes last."""
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
    ids: list[str]
    indexes: Path
    """One index folder a space."""
    encoder: OwnEncoder | None = None
    """What it was embedded with in the place of the parameters' models; None: with those."""

    def __contains__(self, image_id: object) -> bool:
        """Whether one of the images has this id."""
        return image_id in self._known

    @functools.cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.ids)

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
    def spaces(self) -> list[str]:
        """The names of the spaces that have an index."""
        return sorted(path.parent.name for path in self.indexes.glob(f"*/{MANIFEST}"))


class BenchmarkGallery(Gallery):
    """The images of a benchmark that the pipeline has prepared and indexed."""

    def __init__(self, name: str = DEFAULT_BENCHMARK):
        """Open the gallery. Raises ArtifactError when the benchmark has no images or no index."""
        self.name, self.indexes = name, BENCHMARK_INDEXES / name
        if not (self.indexes.is_dir() and (BENCHMARKS / name / "images" / MANIFEST).is_file()):
            makers = "`dvc repro` makes it, `cir index FOLDER` one of your own images"
            raise ArtifactError(f"{self.indexes}: there is no index yet; {makers}")
        self.ids = ShardSet.open(BENCHMARKS / name / "images").table(["image_id"])["image_id"].to_pylist()

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

    def __init__(self, library: Path):
        """Open the library that `cir index` has written. Raises ArtifactError when it is not complete."""
        self.library, (self.root, self.encoder) = library, _read_gallery(library)
        self.name, self.indexes = self.root.name or "images", library / "index"
        if not self.spaces:
            raise ArtifactError(
                f"{library}: there is no finished index; `{index_command(self.root, library)}` makes it"
            )
        indexed = ShardSet.open(library / "vectors" / self.spaces[0], verify=False)
        self.ids = indexed.table(["id"])["id"].to_pylist()
        if self.ids and not any(os.path.isfile(self.root / image_id) for image_id in self.ids):
            raise ArtifactError(_moved(library, self.root))
        self._read_recent = functools.lru_cache(maxsize=256)(self._read)

    def image(self, image_id: str) -> Image.Image:
        """See `Gallery.image`. At most `SIDE` pixels long; the last images stay in memory."""
        return self._read_recent(image_id)

    def _read(self, image_id: str) -> Image.Image:
        if image_id not in self._known:
            raise ArtifactError(f"{self.name}: {image_id!r} is no image of this gallery")
        path = (self.root / image_id).resolve()
        if not path.is_relative_to(self.root):
            raise ArtifactError(f"{self.name}: {image_id!r} leads out of the gallery")
        try:
            return decode_file(path, SIDE)
        except ImageError as error:
            again = f"if it was removed or changed, run `{index_command(self.root, self.library, (), self.encoder)}`"
            raise ArtifactError(f"{self.name}: {image_id!r}: {error}; {again}") from None

    def index_command(self, method: str) -> str:
        """See `Gallery.index_command`."""
        return index_command(self.root, self.library, [method], self.encoder)

    def warns(self, params: Params) -> bool:
        """See `Gallery.warns`."""
        return self.encoder is None and knows_emoji_only(params)

    def id_of(self, path: Path) -> str | None:
        """See `Gallery.id_of`."""
        path = path.resolve()
        name = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else None
        return name if name in self._known else None


def _read_gallery(library: Path) -> tuple[Path, OwnEncoder | None]:
    """The folder of a library's images, and the encoder that they were embedded with."""
    stored = read_json(library / GALLERY)
    root = stored.get("root") if isinstance(stored, dict) else None
    if not isinstance(root, str):
        raise ArtifactError(f"{library / GALLERY}: damaged: it names no folder; run `cir index` again")
    own = stored.get("encoder")
    return Path(os.path.realpath(library / root)), OwnEncoder(own["name"], own["pretrained"]) if own else None


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
        where: A folder that was indexed, its library folder, or the name of a benchmark. None: the default benchmark.

    Returns:
        The gallery.

    Raises:
        ArtifactError: When the folder or the benchmark has no index.
    """
    if where is None:
        return BenchmarkGallery()
    folder = Path(where)
    for library in (folder, folder / LIBRARY):
        if (library / GALLERY).is_file():
            return FolderGallery(library)
    if folder.is_dir():
        raise ArtifactError(f"{folder}: not indexed yet; run `{index_command(folder, folder / LIBRARY)}`")
    return BenchmarkGallery(str(where))

"""What is searched: the images of a benchmark, or a folder that `cir index` has been through."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from pathlib import Path

from PIL import Image

from pipeline.app.search.user_images import UserImageError, read_user_image
from pipeline.artifacts import ArtifactError, ShardSet, read_json
from pipeline.artifacts.shards import MANIFEST
from pipeline.encoders.embedding.rows import MAX_PIXELS
from pipeline.encoders.image_source import ImageTable

LIBRARY, GALLERY = ".cir", "gallery.json"
"""The folder that `cir index` leaves in a folder of images, and the file that says so."""
BENCHMARKS, BENCHMARK_INDEXES = Path("data/benchmarks"), Path("data/index")
DEFAULT = "emoji_cir"


class Gallery(ABC):
    """Images with ids, and the indexes over them."""

    name: str
    ids: list[str]
    indexes: Path
    """One index folder a space."""

    @abstractmethod
    def image(self, image_id: str) -> Image.Image:
        """One image as RGB. Raises ArtifactError for an id that is not of this gallery."""

    @abstractmethod
    def id_of(self, path: Path) -> str | None:
        """The id of a file, where the file is one of this gallery's."""

    @property
    def spaces(self) -> list[str]:
        """Spaces that have an index."""
        return sorted(path.parent.name for path in self.indexes.glob(f"*/{MANIFEST}"))


class BenchmarkGallery(Gallery):
    """The images of a benchmark that the pipeline prepared and indexed."""

    def __init__(self, name: str = DEFAULT):
        self.name, self.indexes = name, BENCHMARK_INDEXES / name
        if not (self.indexes.is_dir() and (BENCHMARKS / name / "images" / MANIFEST).is_file()):
            raise ArtifactError(
                f"{self.indexes}: there is no index yet; "
                "`dvc repro` makes it, `cir index FOLDER` one of your own images"
            )
        self._images = ImageTable(BENCHMARKS / name / "images")
        self.ids = self._images.ids

    def image(self, image_id: str) -> Image.Image:
        return self._images.image(image_id)

    def id_of(self, path: Path) -> str | None:
        return None


class FolderGallery(Gallery):
    """A folder of images, read from where they are; ids are paths below it.

    Only images that were indexed are read, and none through a link that leads out of the folder.
    """

    def __init__(self, library: Path):
        self.library = library
        self.root = (library / read_json(library / GALLERY)["root"]).resolve()
        self.name, self.indexes = self.root.name or "images", library / "index"
        if not self.spaces:
            raise ArtifactError(f"{library}: there is no finished index; run `cir index` again")
        indexed = ShardSet.open(library / "vectors" / self.spaces[0], verify=False)
        self.ids = indexed.table(["id"])["id"].to_pylist()
        self._known = frozenset(self.ids)
        self._recent = functools.lru_cache(maxsize=256)(self._read)

    def image(self, image_id: str) -> Image.Image:
        return self._recent(image_id)

    def _read(self, image_id: str) -> Image.Image:
        if image_id not in self._known:
            raise ArtifactError(f"{self.name}: {image_id!r} is no image of this gallery")
        path = (self.root / image_id).resolve()
        if not path.is_relative_to(self.root):
            raise ArtifactError(f"{self.name}: {image_id!r} leads out of the gallery")
        try:
            return read_user_image(path, MAX_PIXELS)
        except UserImageError as error:
            raise ArtifactError(f"{self.name}: {image_id!r}: {error}") from None

    def id_of(self, path: Path) -> str | None:
        path = path.resolve()
        name = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else None
        return name if name in self._known else None


def open_gallery(where: str | Path | None = None) -> Gallery:
    """Open a gallery.

    Args:
        where: A folder that was indexed, or its library; or a benchmark's name; None: the default benchmark.

    Returns:
        The gallery.

    Raises:
        ArtifactError: It is not there, or not indexed yet.
    """
    if where is None:
        return BenchmarkGallery()
    folder = Path(where)
    for library in (folder, folder / LIBRARY):
        if (library / GALLERY).is_file():
            return FolderGallery(library)
    if folder.is_dir():
        raise ArtifactError(f"{folder}: not indexed yet; run `cir index {folder}`")
    return BenchmarkGallery(str(where))

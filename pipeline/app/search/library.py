"""`cir index`: any folder of images -> a library of vectors and indexes.

A library (FOLDER/.cir) holds `files`, the list of what was found; `vectors/<space>`, a shard set of
embeddings with `rejected.parquet` beside it; and `index/<space>`. Images are never copied. A run
that was cut off goes on behind its last whole shard as long as no file has changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tqdm import tqdm

from pipeline.app.search.galleries import GALLERY, LIBRARY
from pipeline.app.search.user_images import UserImageError, read_bytes, read_user_image
from pipeline.artifacts import ArtifactError, ShardSet, sha256_file, write_json, write_table
from pipeline.artifacts.shards import MANIFEST
from pipeline.artifacts.weights import WEIGHTS
from pipeline.config import ParameterError, Params
from pipeline.diffcomp import load_diffcomp
from pipeline.diffcomp.checkpoints import backbone_identity, variant_identity
from pipeline.encoders.dual.interface import DualEncoder
from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import ROWS_PER_SHARD, JobOptions
from pipeline.encoders.embedding.rejected import REJECTED, rejected_images
from pipeline.encoders.embedding.rows import MAX_PIXELS, EncoderRow, UnreadableRowError
from pipeline.encoders.embedding.vectors import embedding_job
from pipeline.encoders.identity import mllm_identity
from pipeline.encoders.image_source import square_pixels
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.encoders.mllm.open import open_mllm
from pipeline.query.methods import CLIP, DIFFCOMP, FUSED, FUSION_DIFF_METHODS
from pipeline.retrieval import BASELINES, build_index
from pipeline.runtime import device

SUFFIXES = frozenset([".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"])
FILES = pa.schema([("image_id", pa.string()), ("size", pa.int64()), ("blake2b", pa.string()), ("reason", pa.string())])
DEFAULT_METHODS = ("fusion_diff", "diffcomp", "slerp")


@dataclass
class Indexed:
    """What `index_folder` did."""

    library: Path
    pictures: int
    rejected: int
    spaces: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Space -> why it has no index."""

    @property
    def rejections(self) -> Path:
        return self.library / "vectors" / self.spaces[0] / REJECTED


def spaces_of(params: Params, methods: Collection[str]) -> list[str]:
    """The spaces that these methods search, fused first. Raises ParameterError naming an unknown method."""
    variants = list(params.diffcomp_variants)
    known = {
        **dict.fromkeys(FUSION_DIFF_METHODS, FUSED),
        **dict.fromkeys(BASELINES, CLIP),
        **{name: name for name in variants},
    }
    for method in methods:
        if method not in known:
            raise ParameterError(f"method: {method!r} is not one of {', '.join(known)}")
    wanted = {known[method] for method in methods}
    return [space for space in (FUSED, CLIP, *variants) if space in wanted]


def index_folder(folder: Path, params: Params, out: Path | None = None, methods: Collection[str] = ()) -> Indexed:
    """Embed and index every image below `folder`, for `methods` (none: the usual ones, as far as they are trained).

    Raises ArtifactError when there is no folder, no image, or none that can be read.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder")
    library = out or folder / LIBRARY
    spaces = spaces_of(
        params,
        methods or [name for name in DEFAULT_METHODS if name not in params.diffcomp_variants or name == "diffcomp"],
    )
    paths = find_images(folder)
    if not paths:
        raise ArtifactError(f"{folder}: there is no image ({', '.join(sorted(SUFFIXES))})")
    (library / GALLERY).unlink(missing_ok=True)  # until it is whole again
    files = list_files(folder, paths, library / "files")
    made_of = {"files": sha256_file(files.folder / MANIFEST)}
    drop_stale(library, spaces, made_of)
    done = Indexed(library, 0, 0)
    for space in spaces:
        if not methods and (missing := _untrained(space)):
            done.left_out[space] = missing
            continue
        embed_folder(FolderReader(folder, files), space, params, library / "vectors" / space, made_of)
        build_index(library / "vectors" / space, library / "index" / space, params.index, params.runtime.threads)
        done.spaces.append(space)
    write_json(
        library / GALLERY, {"root": os.path.relpath(folder.resolve(), library.resolve())}
    )  # last: the library is whole
    done.rejected = len(rejected_images(library / "vectors" / done.spaces[0]))
    done.pictures = files.rows - done.rejected
    return done


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
                    encoded = read_bytes(self._folder / file["image_id"])
                except UserImageError as error:
                    reason = str(error)
            yield EncoderRow(file["image_id"], "", encoded, file["image_id"], reason)


def decode_reduced(row: EncoderRow) -> MllmInput:
    """As `pipeline.encoders.embedding.rows.decode`, at a bounded size. Raises UnreadableRowError with the reason."""
    if row.note:
        raise UnreadableRowError(row.note)
    try:
        return MllmInput(row.text, read_user_image(row.image, MAX_PIXELS))
    except UserImageError as error:
        raise UnreadableRowError(str(error)) from None


class ImageEmbedder:
    """A dual encoder's image side, as the embedding job asks for it."""

    def __init__(self, encoder: DualEncoder):
        self._encoder, self.dim = encoder, encoder.dim

    @torch.inference_mode()
    def embed(self, inputs: Sequence[MllmInput]) -> np.ndarray:
        """f_I of the inputs' images, float32 [N, dim]."""
        pixels = torch.stack([square_pixels(one.image, self._encoder.image_size) for one in inputs])
        return self._encoder.encode_image(self._encoder.normalise(pixels)).float().cpu().numpy()


def embed_folder(reader: FolderReader, space: str, params: Params, out: Path, made_of: dict[str, Any]) -> None:
    """Every readable image's vector in one space."""
    embedder, made_by = _opener(space, params)()
    job = embedding_job(embedder, decode_reduced)
    run_job(
        reader,
        job,
        out,
        made_by | made_of,
        JobOptions(params.encoder.batch_size, ROWS_PER_SHARD, max_rejected_share=1.0),
    )
    if not ShardSet.open(out, verify=False).rows:
        raise ArtifactError(f"{out}: none of {len(reader)} files can be read as an image; {REJECTED} says why")


def _opener(space: str, params: Params) -> Callable[[], tuple[Any, dict[str, Any]]]:
    """How to load what embeds images into a space, and what it is known by."""

    def fused():
        return open_mllm(params.encoder, params.runtime.device), mllm_identity(params.encoder)

    def untouched():
        base = params.diffcomp
        return dual(load_dual_encoder(base.backbone, base.pretrained)), backbone_identity(
            base.backbone, base.pretrained
        )

    def variant():
        section = params.variants()[space]
        model = load_diffcomp(DIFFCOMP / space, load_dual_encoder(section.backbone, section.pretrained))
        return dual(model.encoder), variant_identity(DIFFCOMP / space)

    def dual(encoder: DualEncoder) -> ImageEmbedder:
        return ImageEmbedder(encoder.eval().to(device(params.runtime)))

    return {FUSED: fused, CLIP: untouched}.get(space, variant)


def _untrained(space: str) -> str:
    """Why a space cannot be made yet, or nothing."""
    there = space in (FUSED, CLIP) or (DIFFCOMP / space / WEIGHTS).is_file()
    return "" if there else f"{DIFFCOMP / space} is not trained yet; `dvc repro train_diffcomp` does it"

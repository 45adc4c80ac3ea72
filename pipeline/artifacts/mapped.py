"""Shard sets too large for memory: laid out once as flat files, which training maps and reads rows of.

Parquet gives no single rows in a random order. So beside the shards lies a scratch folder, `.NAME.mapped`: arrays in
NumPy's format, and `layout.json`, which says of what manifest they were made and is written last. Every shard goes to
its place in them on its own and is then noted in `progress.txt`, so that a killed run goes on. Rows that are read lie
in the page cache, which all processes share: the process' own memory does not grow with the set. The folder may be
removed whenever nothing trains; it is made again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import itertools
import json
import logging
import mmap
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.artifacts import ArtifactError, ShardSet, read_json, sha256_file, write_json
from pipeline.artifacts.atomic import StorageError
from pipeline.artifacts.shards import MANIFEST

logger = logging.getLogger(__name__)
VERSION = 1
LAYOUT, PROGRESS, LOCK = "layout.json", "progress.txt", "lock"
ROWS = 128
"""Rows that are decoded at once, by each of the threads that lay out."""
THREADS = 8
"""At most so many lay out; Arrow decodes beside Python's lock."""


def scratch(folder: str | Path) -> Path:
    """Where the shard set `folder` is laid out."""
    return Path(folder).with_name(f".{Path(folder).name}.mapped")


class Array(NamedTuple):
    """A file of the scratch folder: NumPy's header, then the numbers."""

    dtype: str
    shape: list[int]

    @property
    def header(self) -> bytes:
        """What comes before the numbers."""
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            buffer, {"descr": self.dtype, "fortran_order": False, "shape": tuple(self.shape)}
        )
        return buffer.getvalue()

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @property
    def bytes(self) -> int:
        """Bytes of the file."""
        return len(self.header) + self.shape[0] * self.row_bytes

    def fits(self, path: Path) -> bool:
        """Whether `path` is a file of this size and header."""
        if not path.is_file() or path.stat().st_size != self.bytes:
            return False
        with path.open("rb") as file:
            return file.read(len(self.header)) == self.header


class MappedFile:
    """An array that is read from the page cache, not from this process' memory."""

    def __init__(self, path: Path, array: Array):
        self._start, self._row_bytes = len(array.header), array.row_bytes
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        flat = np.ndarray(array.shape, array.dtype, self._map, self._start)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes
            self.tensor = torch.from_numpy(flat)
        if self._row_bytes > mmap.PAGESIZE // 8:  # not for numbers a row
            self._map.madvise(mmap.MADV_RANDOM)  # or every page that is missing brings its neighbours

    def want(self, firsts: Tensor, counts: Tensor) -> None:
        """Have the disk fetch counts [B] rows from firsts [B] on, all at once, before one is waited for."""
        starts = self._start + firsts * self._row_bytes  # [B]
        pages = starts // mmap.PAGESIZE * mmap.PAGESIZE
        for page, length in zip(pages.tolist(), (starts + counts * self._row_bytes - pages).tolist(), strict=True):
            self._map.madvise(mmap.MADV_WILLNEED, page, length)


class Plan(NamedTuple):
    """The arrays that a shard set becomes, and how."""

    arrays: dict[str, Array]
    firsts: dict[str, list[int]]
    """In which row of an array every shard begins."""
    part: Callable[[pa.Table, dict[str, int]], dict[str, np.ndarray]]
    """Some rows of a shard as rows of the arrays, the first of which come to those places.

    Raises ValueError naming a row that cannot be used.
    """


def first_rows(counts: Iterable[int]) -> list[int]:
    """The row in which every shard begins, from the rows of each, and the one behind the last."""
    return [int(first) for first in itertools.accumulate(counts, initial=0)]


def _tables(path: Path) -> Iterator[pa.Table]:
    """A shard's rows, some at a time.

    Its file is mapped too, or all of it would be in memory before the first rows are decoded.
    """
    with pq.ParquetFile(path, memory_map=True) as file:
        for batch in file.iter_batches(ROWS, use_threads=False):
            table = pa.Table.from_batches([batch])
            table.validate(full=True)
            yield table


def map_arrays(shards: ShardSet, plan: Callable[[ShardSet], Plan]) -> dict[str, MappedFile]:
    """Map a shard set's arrays, laid out first unless they are.

    Only one process of a host lays out; the others wait for it.

    Args:
        shards: The set.
        plan: Says what it becomes; only asked when it is laid out.

    Returns:
        The arrays by name.

    Raises:
        ArtifactError: A shard is damaged, or a row of it cannot be used; names it.
        StorageError: The disk has no room.
    """
    folder = scratch(shards.folder)
    folder.mkdir(exist_ok=True)
    made_of = {"version": VERSION, "manifest": sha256_file(shards.folder / MANIFEST)}
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # gone with the process, however it ends
        arrays = _finished(folder, made_of)
        if arrays is None:
            arrays = _lay_out(shards, folder, made_of, plan(shards))
        return {name: MappedFile(_file(folder, name), array) for name, array in arrays.items()}


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _finished(folder: Path, made_of: dict[str, Any]) -> dict[str, Array] | None:
    """The arrays of a complete layout of this manifest. A warning says why one that is there is not used."""
    if not (folder / LAYOUT).is_file():
        return None
    try:
        found = read_json(folder / LAYOUT)
        arrays = {name: Array(*array) for name, array in found.pop("arrays").items()}
        if found != made_of:
            raise ValueError("made of other shards")
        for name, array in arrays.items():
            if not array.fits(_file(folder, name)):
                raise ValueError(f"{name}.npy is not what was written")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s: %s; it is made anew", folder, " ".join(str(error).split()))
        return None
    return arrays


def _lay_out(shards: ShardSet, folder: Path, made_of: dict[str, Any], plan: Plan) -> dict[str, Array]:
    """Write what an earlier run did not; `layout.json` says at last that all is there."""
    done = _begun(folder, json.dumps(made_of, sort_keys=True), plan.arrays)
    left = [number for number, shard in enumerate(shards.manifest.shards) if shard.name not in done]
    lock = threading.Lock()
    before = shards.rows - sum(shards.manifest.shards[number].rows for number in left)

    def write(number: int) -> None:
        shard = shards.manifest.shards[number]
        _write(shards, number, folder, plan)
        with lock:
            with (folder / PROGRESS).open("a") as file:
                print(shard.name, file=file)
            progress.update(shard.rows)

    with tqdm(total=shards.rows, initial=before, desc=str(folder), unit="row", mininterval=5.0) as progress:
        pool = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1))
        try:
            list(pool.map(write, left))
        finally:
            pool.shutdown(cancel_futures=True)  # an error ends it, not the shards that were still to come
    write_json(folder / LAYOUT, made_of | {"arrays": plan.arrays})
    (folder / PROGRESS).unlink(missing_ok=True)
    return plan.arrays


def _begun(folder: Path, made_of: str, arrays: dict[str, Array]) -> set[str]:
    """The shards that are in the arrays already; else none, and the arrays empty.

    Files are removed, not emptied: another process may still read the old ones.
    """
    progress = folder / PROGRESS
    lines = progress.read_text(errors="replace").splitlines() if progress.is_file() else []
    if lines[:1] == [made_of] and all(array.fits(_file(folder, name)) for name, array in arrays.items()):
        return set(lines[1:])
    for path in folder.iterdir():
        if path.name != LOCK:
            path.unlink()
    needed = sum(array.bytes for array in arrays.values())
    if shutil.disk_usage(folder).free < needed:
        raise StorageError(
            errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}, {needed / 2**30:.1f} GiB are needed", str(folder)
        )
    for name, array in arrays.items():
        with _file(folder, name).open("wb") as file:
            file.write(array.header)
            file.truncate(array.bytes)
    progress.write_text(made_of + "\n")
    return set()


def _write(shards: ShardSet, number: int, folder: Path, plan: Plan) -> None:
    """A shard's rows to their places and, before it is noted as done, to the disk."""
    shard = shards.manifest.shards[number]
    path, row = shards.folder / shard.name, 0
    if sha256_file(path) != shard.sha256:
        raise ArtifactError(f"{path}: content does not match the manifest's SHA-256")
    shards.open_shard(shard).close()  # its rows and columns are the manifest's
    places = {name: firsts[number] for name, firsts in plan.firsts.items()}
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(_file(folder, name).open("r+b")) for name in plan.arrays}
        try:
            for table in _tables(path):
                for name, numbers in plan.part(table, places).items():
                    files[name].seek(len(plan.arrays[name].header) + places[name] * plan.arrays[name].row_bytes)
                    files[name].write(np.ascontiguousarray(numbers).data)
                    places[name] += len(numbers)
                row += len(table)
        except (ValueError, pa.ArrowException) as error:
            raise ArtifactError(f"{path}, counted from row {row}: {error}") from None
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())

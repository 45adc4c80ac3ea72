"""The checks of `cir verify`: every file of data/, models/ and reports/ against manifests, inputs and dvc.lock.

Every byte is read. `dvc status` trusts a file's time and size and would miss a damaged disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.artifacts import ArtifactError, ShardSet, ShardWriter, read_json, sha256_file
from pipeline.artifacts.shards import MANIFEST

FOLDERS = ("data", "models", "reports")
RAW = "data/raw"
"""Not checked: packages, which `prepare` compares with pinned hashes, and the public benchmarks."""
CODE_SUFFIXES = frozenset([".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"])
"""Suffixes of formats that are, or may hold, pickles. Nothing in the project writes any."""

Checks = Iterator[tuple[str, str]]
"""What was checked, and what is wrong with it: "" for nothing."""


def check_outputs(root: Path) -> Checks:
    """Run every check over a project.

    Args:
        root: The project's folder.

    Yields:
        The checked file, folder or stage, relative to `root`, and its problem on one line: "" for none.

    Raises:
        ArtifactError: When `root` has none of the three folders, or a lock file is not one of DVC.
    """
    if not any((root / folder).is_dir() for folder in FOLDERS):
        raise ArtifactError(
            f"{root}: has none of the folders {', '.join(FOLDERS)}; name the project's folder with --root"
        )
    for check in (check_file_kinds, check_shard_sets, check_indexes, check_models, check_recorded_outputs):
        for name, problem in check(root):
            line = " ".join(problem.replace(f"{root}/", "").split())
            yield name, line.removeprefix(f"{name}: ")


def check_file_kinds(root: Path) -> Checks:
    """No file of a kind that may hold code, and nothing that an interrupted run has left."""
    for path in _files_below(root):
        name, problem = _relative(root, path), ""
        if path.suffix.lower() in CODE_SUFFIXES:
            problem = "a kind of file that may hold code; nothing here reads or writes it"
        elif path.name == ShardWriter.JOURNAL or any(_is_unfinished(part) for part in path.relative_to(root).parts):
            problem = "left by a run that was cut off; `dvc repro` finishes it"
        elif path.parent.name == "checkpoint":
            problem = "the checkpoint of a training that is not finished; `dvc repro` goes on with it"
        yield name, problem


def _is_unfinished(name: str) -> bool:
    """Whether `write_atomically` gives such a name to what is unfinished or about to be removed."""
    return name.startswith(".") and name.endswith((".partial", ".old"))


def check_shard_sets(root: Path) -> Checks:
    """Every shard set: its manifest, its shards' bytes, rows and columns, and the inputs that its identity names."""
    for path in _files_below(root, MANIFEST):
        if "shards" in _read_object(path):
            yield _relative(root, path.parent), _problem_of(_check_shard_set, root, path.parent)


def _check_shard_set(root: Path, folder: Path) -> None:
    opened = ShardSet.open(folder)
    for shard in opened.manifest.shards:
        opened.open_shard(shard)
    known = {shard.name for shard in opened.manifest.shards}
    for path in sorted(folder.glob("*.parquet")):
        if path.name.startswith("part-") and path.name not in known:
            raise ArtifactError(f"{path}: a shard that the manifest does not name")
    inputs = opened.identity.get("inputs")
    for source, expected in inputs.items() if isinstance(inputs, dict) else ():
        _check_input(folder, root / source, expected)
    if (gallery := _below(root, folder, "data/gallery")) and "images" in opened.identity:
        _check_input(folder, root / "data/benchmarks" / Path(gallery).parts[0] / "images", opened.identity["images"])


def _check_input(folder: Path, source: Path, expected: str) -> None:
    manifest = source / MANIFEST
    if not manifest.is_file() or sha256_file(manifest) != expected:
        raise ArtifactError(f"{folder}: not made from the present {source}")


def check_indexes(root: Path) -> Checks:
    """Every index: its bytes, and that its rows are those of its gallery."""
    for path in _files_below(root, MANIFEST):
        if "index_sha256" in _read_object(path):
            yield _relative(root, path.parent), _problem_of(_check_index, root, path.parent)


def _check_index(root: Path, folder: Path) -> None:
    from pipeline.retrieval import load_index

    place = _below(root, folder, "data/index")
    gallery = root / "data/gallery" / place if place else None
    index = load_index(folder, gallery)
    if gallery and index.ids != ShardSet.open(gallery, verify=False).table(["id"])["id"].to_pylist():
        raise ArtifactError(f"{folder}: its rows are not those of {gallery}")


def check_models(root: Path) -> Checks:
    """Every file of weights: its format, the hash in its configuration, and the prior that a Control-Adapter has."""
    for path in _files_below(root, "*.safetensors"):
        yield _relative(root, path), _model_problem(root, path)


def _model_problem(root: Path, path: Path) -> str:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        return f"not readable as safetensors ({error})"
    config = _read_object(path.parent / "config.json")
    if "sha256" in config and sha256_file(path) != config["sha256"]:
        return "does not match the SHA-256 in config.json"
    prior = root / "models/prior" / path.name
    is_adapter = _below(root, path, "models/control") is not None
    if is_adapter and prior.is_file() and config.get("prior") != sha256_file(prior):
        return f"was trained beside another prior than {_relative(root, prior)}"
    return ""


def check_recorded_outputs(root: Path) -> Checks:
    """Every output that a dvc.lock records, byte for byte, and that each stage read what the stages before it wrote.

    A frozen stage is held to its outputs alone: what is shipped was trained on the default profile's data, whatever
    data lies there now.
    """
    recorded: dict[str, str] = {}
    stages = [
        (lock, name, stage)
        for lock in (root / "dvc.lock", root / "sweeps/dvc.lock")
        if lock.is_file()
        for name, stage in _stages_of(lock)
    ]
    for lock, _, stage in stages:
        for out in stage.get("outs", ()):
            path = (lock.parent / out["path"]).resolve()
            name = _relative(root.resolve(), path)
            recorded[name] = out["md5"]
            if name.split("/")[0] in FOLDERS:
                yield name, _difference(root, path, out["md5"])
    for lock, name, stage in stages:
        if name in _frozen(lock.parent):
            continue
        for dep in stage.get("deps", ()):
            read = _relative(root.resolve(), (lock.parent / dep["path"]).resolve())
            if read in recorded and "md5" in dep:
                same = dep["md5"] == recorded[read]
                problem = "" if same else f"was run on another {read} than the one recorded"
                yield f"{_relative(root, lock)}, {name}", problem


def _frozen(folder: Path) -> set[str]:
    graph = folder / "dvc.yaml"
    stages = yaml.safe_load(graph.read_text(encoding="utf-8"))["stages"] if graph.is_file() else {}
    return {name for name, stage in stages.items() if stage.get("frozen")}


def _stages_of(lock: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        return list(yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"].items())
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
        raise ArtifactError(f"{lock}: not a lock file of DVC") from None


def _difference(root: Path, path: Path, expected: str) -> str:
    """What differs between `path` and the MD5 that dvc.lock records for it."""
    if not path.exists():
        return "is missing"
    if not expected.endswith(".dir"):
        return "" if _md5(path) == expected else "does not match its MD5 in dvc.lock"
    found = {file.relative_to(path).as_posix(): _md5(file) for file in sorted(path.rglob("*")) if file.is_file()}
    if dir_md5(found) == expected:
        return ""
    recorded = _cached_listing(root, expected)
    if recorded is None:
        return "does not match its MD5 in dvc.lock"
    differing = sorted(name for name in found.keys() | recorded.keys() if found.get(name) != recorded.get(name))
    names = ", ".join(differing[:5]) + ", ..." * (len(differing) > 5)
    return f"{len(differing)} files are not those of dvc.lock: {names}"


def dir_md5(files: dict[str, str]) -> str:
    """DVC's hash of a folder.

    Args:
        files: Path below the folder -> MD5 of the file, in hexadecimal.

    Returns:
        The MD5 of DVC's listing of these files, with the suffix ".dir".
    """
    listing = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _cached_listing(root: Path, value: str) -> dict[str, str] | None:
    """Path -> MD5 of a recorded folder's files, from DVC's cache. None where the cache has no such folder."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        path = Path(Repo(str(root)).cache.local.path, value[:2], value[2:])
        return {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_text())}
    except (DvcException, OSError, ValueError):
        return None


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _files_below(root: Path, pattern: str = "*") -> list[Path]:
    """The files of the three folders in order, without the raw data."""
    found = [path for folder in FOLDERS for path in (root / folder).rglob(pattern)]
    return sorted(path for path in found if path.is_file() and _below(root, path, RAW) is None)


def _below(root: Path, path: Path, folder: str) -> str | None:
    """The path relative to a folder of the project. None where it is outside."""
    return path.relative_to(root / folder).as_posix() if path.is_relative_to(root / folder) else None


def _relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object. An empty one for any other content, which another check reports."""
    try:
        content = read_json(path)
    except ArtifactError:
        return {}
    return content if isinstance(content, dict) else {}


def _problem_of(check: Callable[[Path, Path], None], root: Path, folder: Path) -> str:
    try:
        check(root, folder)
    except ArtifactError as error:
        return str(error)
    except (OSError, KeyError, TypeError, RuntimeError) as error:  # a file or a manifest's field is gone; FAISS
        return f"not readable ({error!r})"
    return ""

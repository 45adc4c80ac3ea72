"""`cir verify`: everything below data/, models/ and reports/ against its manifests, its inputs and dvc.lock.

Every byte is read: unlike `dvc status`, which trusts a file's time and size, this finds a disk that has changed its mind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from pipeline.artifacts import ArtifactError, ShardSet, ShardWriter, read_json, sha256_file
from pipeline.artifacts.shards import MANIFEST
from pipeline.errors import report_user_errors

FOLDERS = ("data", "models", "reports")
RAW = "data/raw"
"""Not ours: packages, which `prepare` checks against pinned hashes, and the public benchmarks."""
CODE = frozenset([".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"])
"""Suffixes of formats that are, or may hold, pickles: nothing here writes any."""


@report_user_errors()
def verify(root: Annotated[Path, typer.Option(help="The project's folder.")] = Path(".")) -> None:
    """Check everything below data/, models/ and reports/, name what differs, and end with status 1 if anything does."""
    if not any((root / folder).is_dir() for folder in FOLDERS):
        raise ArtifactError(f"{root}: has none of the folders {', '.join(FOLDERS)}")
    checked, problems = 0, []
    for check in (kinds_of_files, shard_sets, indexes, models, recorded_outputs):
        for subject, problem in check(root):
            checked += 1
            if problem:
                problems.append(problem)
                line = " ".join(problem.replace(f"{root}/", "").split())
                typer.echo(f"{subject}: {line.removeprefix(f'{subject}: ')}")
    typer.echo(f"{checked} checks, {len(problems)} problems")
    if problems:
        raise SystemExit(1)


Checks = Iterator[tuple[str, str]]
"""What was looked at, and what is wrong with it: "" for nothing."""


def kinds_of_files(root: Path) -> Checks:
    """Nothing that a loader might execute, and nothing that an interrupted run has left."""
    for path in _files(root):
        name, problem = _name(root, path), ""
        if path.suffix.lower() in CODE:
            problem = "a kind of file that may hold code; nothing here reads or writes it"
        elif path.name == ShardWriter.JOURNAL or any(_is_aside(part) for part in path.relative_to(root).parts):
            problem = "left by a run that was cut off; `dvc repro` finishes it"
        elif path.parent.name == "checkpoint":
            problem = "the checkpoint of a training that is not finished; `dvc repro` goes on with it"
        yield name, problem


def _is_aside(name: str) -> bool:
    """Whether `write_atomically` names what is not finished, or about to go, like that."""
    return name.startswith(".") and name.endswith((".partial", ".old"))


def shard_sets(root: Path) -> Checks:
    """Every shard set: its manifest, every shard's bytes, rows and columns, and the inputs that it says it was made from."""
    for path in _files(root, MANIFEST):
        if "shards" not in _object(path):
            continue
        name = _name(root, path.parent)
        yield name, _caught(_check_shard_set, root, path.parent)


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


def indexes(root: Path) -> Checks:
    """Every index: its bytes, and that it belongs to its gallery, row for row."""
    for path in _files(root, MANIFEST):
        if "index_sha256" in _object(path):
            yield _name(root, path.parent), _caught(_check_index, root, path.parent)


def _check_index(root: Path, folder: Path) -> None:
    from pipeline.retrieval import Index

    place = _below(root, folder, "data/index")
    gallery = root / "data/gallery" / place if place else None
    index = Index.open(folder, gallery)
    if gallery and index.ids != ShardSet.open(gallery, verify=False).table(["id"])["id"].to_pylist():
        raise ArtifactError(f"{folder}: its rows are not those of {gallery}")


def models(root: Path) -> Checks:
    """Every file of weights: readable, with the hash that its configuration names, and the prior that a Control-Adapter has."""
    from safetensors import SafetensorError, safe_open

    for path in _files(root, "*.safetensors"):
        problem, config = "", _object(path.parent / "config.json")
        try:
            with safe_open(path, "pt") as file:
                file.keys()
        except (SafetensorError, OSError) as error:
            problem = f"not readable as safetensors ({error})"
        if not problem and "sha256" in config and sha256_file(path) != config["sha256"]:
            problem = "does not match the SHA-256 in config.json"
        prior = root / "models/prior" / path.name
        if (
            not problem
            and _below(root, path, "models/control")
            and prior.is_file()
            and config.get("prior") != sha256_file(prior)
        ):
            problem = f"was trained beside another prior than {_name(root, prior)}"
        yield _name(root, path), problem


def recorded_outputs(root: Path) -> Checks:
    """Every output that a dvc.lock records, byte for byte; and that each stage was run on what the stages before it made."""
    made: dict[str, str] = {}
    stages = []
    for lock in (root / "dvc.lock", root / "sweeps/dvc.lock"):
        if lock.is_file():
            stages += [(lock, name, stage) for name, stage in _locked(lock)]
    for lock, _, stage in stages:
        for out in stage.get("outs", ()):
            path = (lock.parent / out["path"]).resolve()
            name = path.relative_to(root.resolve()).as_posix()
            made[name] = out["md5"]
            if name.split("/")[0] in FOLDERS:
                yield name, _recorded(root, path, out["md5"])
    for lock, name, stage in stages:
        for dep in stage.get("deps", ()):
            place = (lock.parent / dep["path"]).resolve().relative_to(root.resolve()).as_posix()
            if place in made and "md5" in dep:
                same = dep["md5"] == made[place]
                yield (
                    f"{_name(root, lock)}, {name}",
                    "" if same else f"was run on another {place} than the one recorded",
                )


def _locked(lock: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        return list(yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"].items())
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
        raise ArtifactError(f"{lock}: not a lock file of DVC") from None


def _recorded(root: Path, path: Path, expected: str) -> str:
    """What differs between `path` and the MD5 that dvc.lock has of it."""
    if not path.exists():
        return "is missing"
    if not expected.endswith(".dir"):
        return "" if _md5(path) == expected else "does not match its MD5 in dvc.lock"
    found = {file.relative_to(path).as_posix(): _md5(file) for file in sorted(path.rglob("*")) if file.is_file()}
    if dir_md5(found) == expected:
        return ""
    recorded = _listing(root, expected)
    if recorded is None:
        return "does not match its MD5 in dvc.lock"
    differing = sorted(name for name in found.keys() | recorded.keys() if found.get(name) != recorded.get(name))
    return (
        f"{len(differing)} files are not those of dvc.lock: {', '.join(differing[:5])}{', ...' * (len(differing) > 5)}"
    )


def dir_md5(files: dict[str, str]) -> str:
    """DVC's hash of a folder, from the MD5 of every file below it."""
    listing = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _listing(root: Path, value: str) -> dict[str, str] | None:
    """A folder's files as DVC's cache remembers them; None where it does not."""
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


def _files(root: Path, pattern: str = "*") -> list[Path]:
    """Files below the three folders, what is raw apart, in order."""
    found = [path for folder in FOLDERS for path in (root / folder).rglob(pattern)]
    return sorted(path for path in found if path.is_file() and _below(root, path, RAW) is None)


def _below(root: Path, path: Path, folder: str) -> str | None:
    return path.relative_to(root / folder).as_posix() if path.is_relative_to(root / folder) else None


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one for anything else, which another check names."""
    try:
        content = read_json(path)
    except ArtifactError:
        return {}
    return content if isinstance(content, dict) else {}


def _caught(check: Callable[[Path, Path], None], root: Path, folder: Path) -> str:
    try:
        check(root, folder)
    except ArtifactError as error:
        return str(error)
    except (
        OSError,
        KeyError,
        TypeError,
        RuntimeError,
    ) as error:  # a file that is gone, a manifest that lacks something, FAISS
        return f"not readable ({error!r})"
    return ""

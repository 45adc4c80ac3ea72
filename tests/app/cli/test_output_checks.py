"""`cir verify`: a file that is changed, removed or replaced is named, and the command fails."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from torch import nn
from typer.testing import CliRunner

from pipeline.app.cli.main import app
from pipeline.artifacts import save_weights, schemas, sha256_file, write_json, write_table
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import IndexParams
from pipeline.retrieval import build_index
from tests.sections import section

IDS = [f"image {number}" for number in range(30)]


def write_gallery(folder: Path, ids: list[str], identity: dict, seed: int = 0) -> None:
    vectors = np.random.default_rng(seed).normal(size=(len(ids), 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [{"id": name, "vector": vector} for name, vector in zip(ids, vectors, strict=True)]
    write_table(folder, pa.Table.from_pylist(rows, schema=schemas.embeddings(4)), identity, rows_per_shard=10)


def write_project(root: Path) -> None:
    images = [{"image_id": name, "bytes": name.encode(), "width": 1, "height": 1} for name in IDS]
    benchmark = root / "data/benchmarks/some/images"
    write_table(benchmark, pa.Table.from_pylist(images, schema=schemas.IMAGES), {}, rows_per_shard=10)
    gallery, made_of = root / "data/gallery/some/clip", {"images": sha256_file(benchmark / MANIFEST)}
    write_gallery(gallery, IDS, made_of)
    inputs = {"data/benchmarks/some/images": made_of["images"]}
    write_gallery(root / "data/fused/pairs", IDS, {"inputs": inputs})
    build_index(gallery, root / "data/index/some/clip", section(IndexParams))
    torch.manual_seed(0)
    save_weights(root / "models/prior", nn.Linear(3, 2).state_dict(), {})
    prior = sha256_file(root / "models/prior/model.safetensors")
    save_weights(root / "models/control", nn.Linear(2, 2).state_dict(), {"prior": prior}, "step,loss\n0,1\n")
    write_json(root / "reports/metrics.json", {"recall": 1.0})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """A project whose outputs DVC itself has written and recorded."""
    root = tmp_path_factory.mktemp("recorded")
    write_project(root / "source")
    first = {
        "cmd": "cp -r source/data source/reports . && cp -r source/models/prior source/models/control models/",
        "outs": ["data", "models/prior", "models/control", "reports/metrics.json"],
    }
    second = {"cmd": "cat data/index/some/clip/manifest.json > last", "deps": ["data"], "outs": ["last"]}
    (root / "models").mkdir()
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"first": first, "second": second}}))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for command in (["init", "--no-scm", "-q"], ["config", "core.analytics", "false"], ["repro", "-q"]):
        subprocess.run(["dvc", *command], cwd=root, env={**os.environ, "PATH": path}, check=True)
    shutil.rmtree(root / "source")
    return root


@pytest.fixture
def project(recorded, tmp_path) -> Path:
    shutil.copytree(recorded, tmp_path / "project")
    return tmp_path / "project"


def verify(root: Path) -> tuple[int, list[str]]:
    result = CliRunner().invoke(app, ["verify", "--root", str(root)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    *problems, summary = result.output.strip().splitlines()
    assert summary.endswith(f"{len(problems)} problems")
    return result.exit_code, problems


def assert_problem(root: Path, text: str) -> None:
    """The command fails, and one of its lines has this text."""
    status, problems = verify(root)
    assert status == 1 and any(text in problem for problem in problems), problems


def test_what_dvc_recorded_has_no_problems(project):
    assert verify(project) == (0, [])


def flip(path: Path, at: int) -> None:
    """Change one bit and keep the file's size and time, which is all that `dvc status` looks at."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


FILES = [
    "data/gallery/some/clip/part-00001.parquet",
    "data/index/some/clip/index.faiss",
    "data/index/some/clip/ids/part-00000.parquet",
    "data/benchmarks/some/images/part-00000.parquet",
    "models/prior/model.safetensors",
    "models/prior/config.json",
    "models/control/training.csv",
    "reports/metrics.json",
    "data/gallery/some/clip/manifest.json",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed"])
def test_a_damaged_file_is_named(project, name, damage):
    path = project / name
    if damage == "flipped":
        flip(path, path.stat().st_size // 2)
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.unlink()
    assert_problem(project, path.name)


def replace_shard(folder: Path, number: int, source: Path) -> None:
    """Replace a shard by another set's, with its hash in the manifest."""
    shutil.copy(source / f"part-{number:05d}.parquet", folder)
    content = json.loads((folder / MANIFEST).read_text())
    content["shards"][number]["sha256"] = sha256_file(folder / f"part-{number:05d}.parquet")
    (folder / MANIFEST).write_text(json.dumps(content))


def without_lock(root: Path) -> Path:
    """Leave only the manifests, as before DVC has recorded a run."""
    (root / "dvc.lock").unlink()
    return root


def test_a_foreign_shard_is_found_by_its_hash(project):
    write_gallery(project.parent / "other", IDS, {}, seed=1)
    shutil.copy(project.parent / "other/part-00001.parquet", project / "data/gallery/some/clip")
    assert_problem(without_lock(project), "part-00001.parquet: content does not match the manifest's SHA-256")


def test_a_foreign_shard_with_a_forged_manifest_does_not_fit_the_index(project):
    write_gallery(project.parent / "other", IDS, {}, seed=1)
    replace_shard(project / "data/gallery/some/clip", 1, project.parent / "other")
    status, [problem] = verify(without_lock(project))
    assert status == 1 and "data/index/some/clip: not built from the present" in problem


def test_a_shard_of_other_columns_with_a_forged_manifest(project):
    replace_shard(project / "data/gallery/some/clip", 1, project / "data/benchmarks/some/images")
    assert_problem(without_lock(project), "its columns are not those of the manifest")


def test_an_index_of_another_gallery(project):
    made_of = {"images": sha256_file(project / "data/benchmarks/some/images" / MANIFEST)}
    write_gallery(project / "data/gallery/some/clip", IDS[::-1], made_of)
    status, [problem] = verify(without_lock(project))
    assert status == 1 and "data/index/some/clip: not built from the present" in problem


def test_a_gallery_of_other_images(project):
    images = project / "data/benchmarks/some/images"
    rows = [{"image_id": "one", "bytes": b"", "width": 1, "height": 1}]
    write_table(images, pa.Table.from_pylist(rows, schema=schemas.IMAGES), {})
    status, problems = verify(without_lock(project))
    named = [problem.split(":")[0] for problem in problems]
    assert status == 1 and named == ["data/fused/pairs", "data/gallery/some/clip"]
    assert all("not made from the present" in problem for problem in problems)


def test_an_adapter_beside_another_prior(project):
    save_weights(project / "models/prior", nn.Linear(3, 2).state_dict(), {})
    status, problems = verify(without_lock(project))
    prior, control = "models/prior/model.safetensors", "models/control/model.safetensors"
    assert status == 1 and problems == [f"{control}: was trained beside another prior than {prior}"]


@pytest.mark.parametrize(
    "name", ["models/prior/extra.pkl", "data/index/some/clip/vectors.npy", "models/control/pytorch_model.bin"]
)
def test_a_file_that_may_hold_code(project, name):
    (project / name).write_bytes(b"\x80\x04.")
    status, problems = verify(without_lock(project))
    assert status == 1 and problems == [f"{name}: a kind of file that may hold code; nothing here reads or writes it"]


LEFT_OVER = (
    "data/gallery/some/clip/.journal.json",
    "models/.prior.partial/model",
    "models/prior/checkpoint/state.json",
)


def test_what_a_killed_run_left(project):
    for name in LEFT_OVER:
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("{}")
    status, problems = verify(without_lock(project))
    assert status == 1 and len(problems) == 3 and all("dvc repro" in problem for problem in problems)


def test_a_stage_that_ran_on_something_else(project):
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    lock["stages"]["second"]["deps"][0]["md5"] = "0" * 32 + ".dir"
    (project / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert verify(project) == (1, ["dvc.lock, second: was run on another data than the one recorded"])
    graph = yaml.safe_load((project / "dvc.yaml").read_text())
    graph["stages"]["second"]["frozen"] = True
    (project / "dvc.yaml").write_text(yaml.safe_dump(graph))
    assert verify(project) == (0, [])


def assert_one_line(root: Path, reason: str) -> None:
    result = CliRunner().invoke(app, ["verify", "--root", str(root)])
    assert result.exit_code == 1 and result.stderr.startswith("error: ") and reason in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_folder_that_is_no_project(project):
    assert_one_line(project / "models/prior", "has none of the folders data")


@pytest.mark.parametrize("content", ["[", "{}", "stages: 3"])
def test_a_lock_file_that_is_none(project, content):
    (project / "dvc.lock").write_text(content)
    assert_one_line(project, "not a lock file of DVC")

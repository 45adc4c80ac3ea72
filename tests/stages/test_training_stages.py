"""The training stages and the query side of every method, over a dozen images."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from pipeline.artifacts import ArtifactError, ShardSet, schemas, weights, write_table
from pipeline.config import load_params
from pipeline.diffcomp import load_diffcomp
from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.fusion_diff import triplets
from pipeline.fusion_diff.checkpoints import load_control, load_prior
from pipeline.query.fusion_diff import CONTROL, PRIOR
from stages import train_control_adapter, train_diffcomp, train_prior
from tests.sections import ROOT
from tests.stages.conftest import TEXT_DIM, write_vectors


@pytest.fixture
def trained(workspace):
    train_prior.main()
    train_control_adapter.main()
    return workspace


def files(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def test_both_stages_of_fusion_diff(trained):
    assert sorted(path.name for path in PRIOR.iterdir()) == ["config.json", "model.safetensors", "training.csv"]
    assert (CONTROL / "training.csv").read_text().startswith("step,loss")


def test_a_stage_repeats_byte_for_byte(trained):
    before = files("models/prior") | files("models/control")
    for folder in ("models/prior", "models/control"):
        shutil.rmtree(folder)
    train_prior.main()
    train_control_adapter.main()
    assert files("models/prior") | files("models/control") == before


def test_what_is_mapped_trains_the_same_bytes(trained, monkeypatch):
    before = files("models/prior") | files("models/control")
    for stage, folder in ((train_prior, "models/prior"), (train_control_adapter, "models/control")):
        shutil.rmtree(folder)
        for name in ("open_vectors", "open_conditions"):
            monkeypatch.setattr(stage, name, partial(getattr(stage, name), in_memory=0))
        monkeypatch.setattr(triplets, "open_vectors", train_prior.open_vectors)
        stage.main()
    assert files("models/prior") | files("models/control") == before
    mapped = {
        ".pairs.mapped",
        ".pairs_text.mapped",
        *(f".triplets_{name}.mapped" for name in ("query", "target", "text")),
    }
    assert mapped <= {path.name for path in Path("data/fused").iterdir()}


def test_a_finished_training_is_not_repeated_unless_something_differs(trained, monkeypatch):
    before, trainings = files("models/prior"), []
    train = train_prior.train
    monkeypatch.setattr(
        train_prior, "train", lambda *arguments, **options: trainings.append(1) or train(*arguments, **options)
    )
    train_prior.main()
    assert not trainings and files("models/prior") == before
    (PRIOR / "model.safetensors").write_bytes(before["models/prior/model.safetensors"][:-1] + b"\x55")
    train_prior.main()
    assert len(trainings) == 1 and files("models/prior") == before
    monkeypatch.setattr(weights, "_code_hash", lambda modules: "another revision of the code")
    train_prior.main()
    assert len(trainings) == 2 and files("models/prior") == before
    params = yaml.safe_load(Path("params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(params | {"seed": 1}))
    train_prior.main()
    assert len(trainings) == 3 and files("models/prior") != before


@pytest.fixture
def encoding_while_training(workspace):
    """A tiny T5 whose limit is five tokens, and no token states of the pairs."""
    words = Tokenizer(
        models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "ball": 4, "cat": 5}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained("t5")
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 8,
        "d_model": TEXT_DIM,
        "d_kv": 4,
        "d_ff": 16,
        "num_layers": 1,
        "num_heads": 2,
        "decoder_start_token_id": 0,
    }
    T5EncoderModel(T5Config(**sizes)).save_pretrained("t5")
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["text_encoder"] |= {
        "kind": "huggingface",
        "path": "t5",
        "dim": TEXT_DIM,
        "max_tokens": 2,
        "while_training": True,
    }
    Path("params.yaml").write_text(yaml.safe_dump(params))
    ids = ShardSet.open("data/fused/pairs").table(["id"])["id"].to_pylist()
    write_vectors("data/fused/pairs", [f"{name}/long" for name in ids], 0, {})
    write_table("data/fused/pairs_text", schemas.conditions(TEXT_DIM).empty_table(), {})
    return load_params()


def test_captions_are_encoded_while_training(encoding_while_training, caplog):
    """Every caption has three tokens where two are taken: one warning counts them, and the stage repeats itself."""
    train_prior.main()
    (warning,) = [record.getMessage() for record in caplog.records if "were cut" in record.getMessage()]
    assert (
        1 <= int(warning.split()[0]) <= 8 and "text_encoder.max_tokens = 2" in warning
    )  # two batches of four, less the dropped
    assert json.loads((PRIOR / "config.json").read_text())["text_encoder"]["path"] == "t5"
    assert Path("data/texts/.pairs.mapped/content").read_bytes().startswith(b"a red ball"), "captions stay on disk"
    before = files("models/prior")
    train_prior.main()
    assert files("models/prior") == before


def test_captions_of_other_pairs_are_refused(encoding_while_training):
    write_vectors("data/fused/pairs", [f"{number}/long" for number in range(12)], 0, {})
    with pytest.raises(ArtifactError, match="row 0 is 'red ball/long', but '0/long' belongs there"):
        train_prior.main()


def test_what_does_not_belong_together_is_refused(trained):
    with pytest.raises(ArtifactError, match="trained with embedder = "):
        load_prior(PRIOR, embedder={"path": "another"})
    write_vectors("data/fused/pairs", [f"other {number}" for number in range(12)], 0, {})
    with pytest.raises(ArtifactError, match="row 0 is 'red ball', but 'other 0' belongs there"):
        train_prior.main()
    prior, _ = load_prior(PRIOR)
    (PRIOR / "model.safetensors").write_bytes(b"another prior")
    with pytest.raises(ArtifactError, match="trained with prior = "):
        load_control(CONTROL, prior, PRIOR)


def test_diffcomp_variants_are_trained_once(workspace, monkeypatch):
    Path("models/diffcomp/gone").mkdir(parents=True)
    train_diffcomp.main()
    assert sorted(path.name for path in Path("models/diffcomp").iterdir()) == ["diffcomp", "diffcomp_row1"]
    encoder = load_dual_encoder(workspace.diffcomp.backbone)
    assert not load_diffcomp("models/diffcomp/diffcomp_row1", encoder).composition.dac

    def refuse(*args, **options):
        raise AssertionError("trained again")

    before = files("models/diffcomp")
    monkeypatch.setattr(train_diffcomp, "fine_tune", refuse)
    train_diffcomp.main()
    assert files("models/diffcomp") == before
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("diffcomp: {}", "diffcomp: {eta: 0.5}"))
    with pytest.raises(AssertionError, match="trained again"):
        train_diffcomp.main()


def test_stages_train_in_two_processes(workspace):
    """As on two GPUs: both begin from the same weights, one writes them, and what is made is found again."""
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["runtime"] |= {"device": "cpu", "gpus": "2"}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    Path("models/diffcomp/gone").mkdir(parents=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for stage in ("train_prior", "train_control_adapter", "train_diffcomp"):
        subprocess.run([sys.executable, "-m", f"stages.{stage}"], env=env, check=True)
    assert sorted(path.name for path in Path("models/diffcomp").iterdir()) == ["diffcomp", "diffcomp_row1"]
    prior, _ = load_prior(PRIOR)
    load_control(CONTROL, prior, PRIOR)
    before = files("models")
    train_prior.main()
    train_diffcomp.main()
    assert files("models") == before

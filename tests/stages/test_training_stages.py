"""The training stages and the query side of every method, over a dozen images."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from pipeline.artifacts import ArtifactError, ShardSet, schemas, weights, write_table
from pipeline.config import load_params
from pipeline.diffcomp import load_diffcomp
from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.encoders.image_source import ImageTable
from pipeline.fusion_diff import Sampler, SamplerSettings
from pipeline.fusion_diff.checkpoints import load_control, load_prior
from pipeline.query.methods import CONTROL, PRIOR, DualEncoderQueries, FusionDiffQueries, open_space
from pipeline.retrieval import Query, build_index
from stages import train_control_adapter, train_diffcomp, train_prior
from tests.stages.conftest import DIM, TEXT_DIM, unit, write_vectors

REFERENCES = ("red ball", "red cat", "green dog", "blue hat")
QUERIES = [
    Query(f"q{number}", reference, ("with a hat",), ("blue cat",)) for number, reference in enumerate(REFERENCES)
]


class FakeMllm:
    dim = DIM

    def embed(self, inputs):
        return unit(len(inputs), len(inputs[0].text))

    def generate(self, inputs, max_new_tokens, sequences=1):
        return [["" if number else "a cat" for number in range(sequences)] for _ in inputs]


class FakeTextEncoder:
    def encode(self, texts):
        return [torch.full((len(text.split()), TEXT_DIM), 0.1 * len(text)) for text in texts]


def fusion_diff(params) -> FusionDiffQueries:
    prior, diffusion = load_prior(PRIOR)
    adapter = load_control(CONTROL, prior, PRIOR)
    samplers = (Sampler(prior, one, diffusion, SamplerSettings(2, 1.0)) for one in (None, adapter))
    return FusionDiffQueries(params, FakeMllm(), FakeTextEncoder(), *samplers)


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
    queries = fusion_diff(trained)
    found = queries.vectors(QUERIES, ImageTable("data/pairs/images"))
    assert {name: one.vectors.shape for name, one in found.items()} == {
        "fused_only": (4, DIM),
        "stage1_only": (4, 2, DIM),
        "fusion_diff": (4, 2, DIM),
    }
    assert {one.space for one in found.values()} == {"fused"}
    assert queries.descriptions["q0"] == ["a cat"]
    np.testing.assert_allclose(np.linalg.norm(found["fusion_diff"].vectors, axis=-1), 1.0, rtol=1e-5)


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
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(f"{text}seed: 1\n")
    train_prior.main()
    assert len(trainings) == 3 and files("models/prior") != before


def test_each_description_conditions_its_share_of_the_hypotheses(trained):
    trained.retrieve.descriptions = 2
    queries = fusion_diff(trained)
    described = queries.describe(QUERIES, ImageTable("data/pairs/images"))
    assert described[0] == ["a cat", "with a hat"]  # nothing was said: the modification stands in
    both = queries.sample(queries.stage1, QUERIES, described)
    trained.retrieve.descriptions, trained.retrieve.hypotheses = 1, 1
    first = queries.sample(queries.stage1, QUERIES, [texts[:1] for texts in described])
    assert both.shape == (4, 2, DIM)
    np.testing.assert_allclose(both[:, :1], first, atol=1e-5)
    assert not np.allclose(both[:, 0], both[:, 1], atol=1e-3)


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
    params["text_encoder"] = {"path": "t5", "dim": TEXT_DIM, "max_tokens": 2, "while_training": True}
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
    before = files("models/prior")
    train_prior.main()
    assert files("models/prior") == before


def test_captions_of_other_pairs_are_refused(encoding_while_training):
    write_vectors("data/fused/pairs", [f"{number}/long" for number in range(12)], 0, {})
    with pytest.raises(ArtifactError, match="row 0 is 'red ball/long', but '0/long' belongs there"):
        train_prior.main()


def test_what_does_not_belong_together_is_refused(trained):
    with pytest.raises(ArtifactError, match="trained with encoder = "):
        load_prior(PRIOR, encoder={"path": "another"})
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
    Path("params.yaml").write_text(text.replace("diffcomp: {}", "diffcomp: {rho: 0.5}"))
    with pytest.raises(AssertionError, match="trained again"):
        train_diffcomp.main()


def test_the_rows_over_dual_encoders(workspace):
    train_diffcomp.main()
    queries = DualEncoderQueries.load(workspace)
    found = queries.vectors(QUERIES, ImageTable("data/pairs/images"))
    assert {name: one.space for name, one in found.items()} == {
        "image_only": "clip",
        "text_only": "clip",
        "image_text": "clip",
        "slerp": "clip",
        "diffcomp_row1": "diffcomp_row1",
        "diffcomp": "diffcomp",
    }
    assert set(queries.spaces) == {"clip", "diffcomp_row1", "diffcomp"}
    for one in found.values():
        assert one.vectors.shape == (4, DIM)
        np.testing.assert_allclose(np.linalg.norm(one.vectors, axis=-1), 1.0, rtol=1e-5)


def test_a_gallery_of_another_model_is_refused(workspace):
    train_diffcomp.main()
    queries = DualEncoderQueries.load(workspace)
    for space, identity in (("clip", queries.spaces["clip"]), ("diffcomp", {"diffcomp": "another model"})):
        write_vectors(f"data/gallery/{space}", ["one", "two"], 0, identity)
        build_index(f"data/gallery/{space}", f"data/index/{space}", workspace.index)
    assert open_space("data/index", queries, "clip").ids == ["one", "two"]
    with pytest.raises(ArtifactError, match="its gallery has diffcomp = 'another model'"):
        open_space("data/index", queries, "diffcomp")

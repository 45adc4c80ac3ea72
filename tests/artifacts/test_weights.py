"""Weights: what does not fit is named."""

import json

import pytest
import torch
from torch import nn

from pipeline.artifacts import ArtifactError, load_weights, save_weights, sha256_file


def model(width=4):
    return nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_weights(tmp_path / "model", model().state_dict(), {"width": 4, "layers": [1, 2]})
    return tmp_path / "model"


def test_round_trip(folder, tmp_path):
    loaded = model()
    assert load_weights(folder, loaded, {"width": 4, "layers": (1, 2)}) == {"width": 4, "layers": [1, 2]}
    save_weights(tmp_path / "again", loaded.state_dict(), {"layers": [1, 2], "width": 4})
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_the_field_that_differs_is_named(folder):
    with pytest.raises(ArtifactError, match="width = 4, but 5"):
        load_weights(folder, model(), {"layers": [1, 2], "width": 5})
    with pytest.raises(ArtifactError, match="depth = None, but 1"):
        load_weights(folder, model(), {"depth": 1})


def test_the_tensor_that_does_not_fit_is_named_with_its_sizes(folder):
    with pytest.raises(ArtifactError, match=r"'0.bias' is \(4,\), the model wants \(5,\)"):
        load_weights(folder, model(5))
    with pytest.raises(ArtifactError, match="'2.bias' is missing"):
        load_weights(folder, nn.Sequential(*model(), nn.Linear(2, 2)))
    with pytest.raises(ArtifactError, match="'1.bias' is unexpected"):
        load_weights(folder, nn.Sequential(model()[0]))


def test_nothing_is_loaded_from_weights_that_do_not_fit(folder):
    wider = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3))
    before = {name: value.clone() for name, value in wider.state_dict().items()}
    with pytest.raises(ArtifactError):
        load_weights(folder, wider)
    assert all(torch.equal(value, before[name]) for name, value in wider.state_dict().items())


def test_missing_and_damaged_files_are_named(folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for damaged in (content[:-5], b"", b"\0" * 40):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="model.safetensors: missing, or it does not match the SHA-256"):
            load_weights(folder, model())
    path.unlink()
    with pytest.raises(ArtifactError, match="model.safetensors: missing, or it does not match the SHA-256"):
        load_weights(folder, model())
    (folder / "config.json").unlink()
    with pytest.raises(ArtifactError, match="config.json: no such file"):
        load_weights(folder, model())


def test_one_flipped_bit_of_a_weight_is_found(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="model.safetensors: missing, or it does not match the SHA-256"):
        load_weights(folder, model())


def test_a_file_that_never_was_safetensors_is_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(b"\x80\x04 no safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"sha256": sha256_file(path)}))
    with pytest.raises(ArtifactError, match="model.safetensors: not readable as safetensors"):
        load_weights(folder, model())


def test_a_failed_save_leaves_the_old_weights(folder):
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(ValueError):
        save_weights(folder, model().state_dict(), {"width": float("nan")})
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_other_types_of_number_are_kept(tmp_path):
    half = {"weight": torch.ones(2, 3, dtype=torch.float16), "bias": torch.zeros(2, dtype=torch.float16)}
    save_weights(tmp_path / "half", half, {})
    linear = nn.Linear(3, 2)
    load_weights(tmp_path / "half", linear)
    assert linear.weight.dtype == torch.float32 and linear.weight.eq(1).all()

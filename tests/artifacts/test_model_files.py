"""The configuration of a model, and the note of one that was not trained."""

import pytest

from pipeline.artifacts import ArtifactError, write_json
from pipeline.artifacts.model_files import CONFIG, is_skipped, read_config, skip_model


def test_a_configuration_has_what_is_asked_for(tmp_path):
    write_json(tmp_path / CONFIG, {"sizes": {"width": 8}})
    assert not is_skipped(tmp_path) and read_config(tmp_path, "prior", "sizes") == {"sizes": {"width": 8}}
    with pytest.raises(ArtifactError, match=r"config\.json: 'limits' is missing"):
        read_config(tmp_path, "student", "sizes", "limits")
    write_json(tmp_path / CONFIG, [])
    with pytest.raises(ArtifactError, match=r"config\.json: 'sizes' is missing"):
        read_config(tmp_path, "prior", "sizes")


def test_a_skipped_model_takes_the_place_of_an_older_one(tmp_path):
    (tmp_path / "control").mkdir()
    write_json(tmp_path / "control" / CONFIG, {})
    skip_model(tmp_path / "control", "there are no triplets")
    assert is_skipped(tmp_path / "control") and [path.name for path in tmp_path.rglob("*.json")] == ["skipped.json"]
    with pytest.raises(ArtifactError, match="control: there is no Control-Adapter: there are no triplets"):
        read_config(tmp_path / "control", "Control-Adapter")


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"prior/config\.json"):
        read_config(tmp_path / "prior", "prior", "sizes")

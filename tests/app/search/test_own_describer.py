"""CIReVL over photographs: an encoder and a multimodal LLM of one's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench.rehearsal.sizes import MLLMS, tiny_mllm
from bench.rehearsal.weights import write_mllm
from pipeline.app.cli.main import app
from pipeline.app.search.galleries import open_gallery
from pipeline.app.search.own_describer import with_describer
from pipeline.app.search.searcher import Searcher
from pipeline.config import ParameterError, load_params
from pipeline.query.dual_family import COMPOSITIONS
from tests.encoders.dual.random_models import save_clip

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project_with_profiles(in_project):
    if not Path("conf").exists():
        Path("conf").symlink_to(ROOT / "conf")


@pytest.fixture
def describer(tmp_path) -> Path:
    folder = tmp_path / "describer"
    folder.mkdir()
    write_mllm(folder, tiny_mllm(MLLMS["Qwen/Qwen2.5-VL-3B-Instruct"]), torch.float32)
    return folder


@pytest.fixture
def photos(in_project, tmp_path) -> Path:
    """A folder that is indexed with a CLIP of one's own."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted(Path("photos").rglob("t*.png"))[:4]:
        shutil.copy(path, folder / path.name)
    run = CliRunner().invoke(app, ["index", str(folder), "--encoder", str(save_clip(tmp_path / "clip"))])
    assert run.exit_code == 0, run.output
    return folder


@pytest.mark.usefixtures("project_with_profiles")
def test_cirevl_searches_a_folder_of_photographs(photos, describer):
    searcher = Searcher(load_params(), open_gallery(photos), describer=str(describer))
    assert set(searcher.methods) == {*COMPOSITIONS, "cirevl", "slerp_roles", "image_text_roles"}
    name = sorted(photos.glob("*.png"))[0]
    command = ["search", "--gallery", str(photos), "--image", str(name), "--text", "a red fox", "--method", "cirevl"]
    without = CliRunner().invoke(app, command)
    assert without.exit_code == 1 and "--describer names one" in without.output
    run = CliRunner().invoke(app, [*command, "--describer", str(describer), "--json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert len(found["hits"]) == 3 and found["descriptions"] != []


@pytest.mark.usefixtures("project_with_profiles")
def test_it_is_asked_as_the_profile_of_general_models_asks():
    own, asked = with_describer(load_params(), "a/b"), with_describer(load_params(), "a/c")
    assert own.describer.path == own.captioner.path == "a/b" and own.describer.target_prompt
    assert own.retrieve == asked.retrieve and own.retrieve.edit_prompt


@pytest.mark.parametrize("name", ["qwen", "a/b/c", "/b"])
def test_a_wrong_describer_is_one_line(name):
    with pytest.raises(ParameterError, match="is no folder and no hub name"):
        with_describer(load_params(ROOT / "params.yaml"), name)

"""The checkpoint that a decoder starts from."""

from dataclasses import replace

import pytest

from pipeline.app.inventory.needs import hub_cache, needs
from tests.sections import plain_params, profile

SANA = "Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers"


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))


def found(params):
    return [need for need in needs(params) if need.used_by == "decoder.checkpoint"]


def test_the_paper_profile_names_sana_and_reads_two_of_its_folders():
    (need,) = found(profile("paper"))
    assert (need.name, need.there, need.files) == (SANA, False, ("transformer/*", "vae/*"))
    assert need.optional
    assert found(plain_params()) == []


def test_it_is_there_with_both_folders(tmp_path):
    params = profile("paper")
    params = replace(params, decoder=replace(params.decoder, revision="abc"))
    snapshot = hub_cache() / f"models--{SANA.replace('/', '--')}" / "snapshots" / "abc"
    for part in ("transformer", "vae"):
        assert not found(params)[0].there
        (snapshot / part).mkdir(parents=True)
        (snapshot / part / "config.json").write_text("{}")
        (snapshot / part / "diffusion_pytorch_model.safetensors").write_bytes(bytes(8))
    need = found(params)[0]
    assert need.there and need.size == 20

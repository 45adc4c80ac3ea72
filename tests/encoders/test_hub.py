"""The paper profile on a machine without its weights: one line says which, where and how much."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipeline.artifacts import ArtifactError
from pipeline.config import load_profile
from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.encoders.hub import not_loaded
from pipeline.encoders.mllm.open import open_mllm
from pipeline.encoders.text import TextEncoder
from tests.sections import composed

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def paper(monkeypatch, tmp_path):
    """The paper profile; no hub can be reached and nothing is cached."""
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(hub, name, str(tmp_path))
    monkeypatch.setenv("HF_HOME", "elsewhere")
    return load_profile("paper", CONF)


def test_f_m_and_e_text_name_revision_place_and_size(paper):
    for section, parameter, size, load in (
        (
            paper.embedder,
            "embedder.path",
            "146.8 GB",
            lambda: open_mllm(dataclasses.replace(paper.embedder, backend="transformers"), paper.jobs),
        ),
        (paper.text_encoder, "text_encoder.path", "9.5 GB", lambda: TextEncoder(paper.text_encoder)),
    ):
        with pytest.raises(ArtifactError) as caught:
            load()
        text = str(caught.value)
        place = f"elsewhere/hub/models--{section.path.replace('/', '--')}"
        assert "\n" not in text
        for part in (parameter, section.path, f"revision {section.revision} is not on this machine", place, size):
            assert part in text


def test_clip_names_its_tag_and_size(paper):
    with pytest.raises(
        ArtifactError,
        match=r"diffcomp.backbone 'ViT-L-14-quickgelu': the weights 'openai' .* elsewhere/hub, about 1.7 GB",
    ):
        load_dual_encoder(paper.diffcomp.backbone, paper.diffcomp.pretrained)


def test_blip_names_its_revision_and_size(paper):
    blip = composed("profile=paper", "diffcomp=blip").diffcomp
    with pytest.raises(
        ArtifactError,
        match=f"diffcomp.backbone '{blip.backbone}': revision {blip.pretrained} is not .* elsewhere/hub.* about 1.8 GB",
    ):
        load_dual_encoder(blip.backbone, blip.pretrained, blip.image_size)


def test_a_local_model_that_cannot_be_loaded_is_no_matter_of_a_hub(tmp_path):
    for path in (str(tmp_path), "models/mine", "./mine/model", "a/b/c"):
        error = not_loaded("embedder.path", path, "", OSError("no config\nmore"))
        assert str(error) == f"embedder.path {path!r}: cannot be loaded (no config)"

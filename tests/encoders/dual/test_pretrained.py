"""Encoders used as they come, against open_clip's and transformers' own preprocessing and features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPImageProcessorPil, CLIPModel, SiglipImageProcessorPil, SiglipModel

from pipeline.artifacts import ArtifactError
from pipeline.encoders.dual.clip import ClipEncoder
from pipeline.encoders.dual.interface import DualEncoder
from pipeline.encoders.dual.open import load_image_text_encoder
from pipeline.encoders.image_source import square_pixels
from tests.encoders.dual.random_models import save_clip, save_siglip


def photograph(width: int = 61, height: int = 40) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width * 2, height * 2), Image.Resampling.BICUBIC)


@pytest.fixture
def siglip(tmp_path: Path) -> Path:
    return save_siglip(tmp_path)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return save_clip(tmp_path)


def reference_features(folder: Path, model_class: type, processor_class: type) -> torch.Tensor:
    pixels = processor_class.from_pretrained(folder)(photograph(), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        output = model_class.from_pretrained(folder).eval()(input_ids=torch.tensor([[2, 3, 4, 9]]), pixel_values=pixels)
    return output.image_embeds


@pytest.mark.parametrize(
    ("kind", "model", "processor"),
    [("siglip", SiglipModel, SiglipImageProcessorPil), ("clip", CLIPModel, CLIPImageProcessorPil)],
)
def test_hub_layouts_give_the_features_of_transformers(kind, model, processor, request):
    folder = request.getfixturevalue(kind)
    encoder = load_image_text_encoder(folder).eval()
    pixels = square_pixels(photograph(), encoder.image_size, encoder.fit)[None]
    with torch.inference_mode():
        found = encoder.encode_image(encoder.normalise(pixels))
    expected = reference_features(folder, model, processor)
    assert found.shape == (1, encoder.dim)
    cosine = torch.nn.functional.cosine_similarity(found, expected).item()
    assert cosine > 0.9999  # both resize in 8 bits, which rounds
    text = encoder.encode_text(encoder.tokenize(["a red fox on snow", "a dog"]))
    assert text.shape == (2, encoder.dim)
    assert torch.allclose(text.norm(dim=1), torch.ones(2), atol=1e-5)


def test_siglip_squashes_and_clip_crops(siglip: Path, tmp_path_factory):
    assert load_image_text_encoder(siglip).fit == "squash"
    wide = Image.new("RGB", (200, 20), "black")
    wide.paste("white", (0, 0, 60, 20))  # outside the central square
    assert square_pixels(wide, 20, "crop").max() == 0
    assert square_pixels(wide, 20, "squash").max() == 255


def save_open_clip(folder: Path, vision: dict, preprocess: dict) -> None:
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    written = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(written))


def test_an_open_clip_folder_of_another_build(tmp_path: Path):
    """A ResNet: no CLS token, no patches. Its features are those of open_clip's own transform."""
    save_open_clip(tmp_path, {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}, {"size": 64, "mean": [0.5] * 3})
    encoder = load_image_text_encoder(tmp_path).eval()
    assert not isinstance(encoder, DualEncoder)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    with torch.inference_mode():
        expected = model.eval().encode_image(transform(photograph())[None], normalize=True)
        pixels = square_pixels(photograph(), encoder.image_size, encoder.fit)[None]
        found = encoder.encode_image(encoder.normalise(pixels))
        text = model.encode_text(open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a fox"], 16), normalize=True)
        assert torch.allclose(encoder.encode_text(encoder.tokenize(["a fox"])), text, atol=1e-6)
    assert (found * expected).sum() > 0.9999  # the two crops may differ by a pixel


def test_a_plain_vit_stays_one_that_diffcomp_takes():
    encoder = load_image_text_encoder("models/backbones/clip")
    assert isinstance(encoder, ClipEncoder)


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14-quickgelu"])
def test_names_of_plain_models_are_recognised(name: str):
    from pipeline.encoders.dual.clip import is_plain

    assert is_plain(open_clip.get_model_config(name))
    assert not is_plain(open_clip.get_model_config("ViT-B-16-SigLIP"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no-such-model", "not a folder, not a model name"),
        ("someone/no-such-repository", "is not on this machine"),
        ("ViT-B-16-SigLIP", ""),
    ],
)
def test_what_is_not_there_is_one_line(name: str, said: str, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ArtifactError) as raised:
        load_image_text_encoder(name, "webli" if name.startswith("ViT") else "")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_another_architecture_is_named(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ArtifactError, match="a bert"):
        load_image_text_encoder(tmp_path)

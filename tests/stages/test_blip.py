"""A BLIP backbone in the paper's shape, through DiffComp's stage and the query side."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import BlipConfig, BlipForImageTextRetrieval, PreTrainedTokenizerFast

from pipeline.artifacts import ArtifactError
from pipeline.config import ParameterError, load_params
from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.query.models import Models
from pipeline.query.spaces import BackboneSpace
from stages import train_diffcomp
from tests.sections import composed, plain_values
from tests.stages.conftest import DIM, VALUES


def write_blip(folder: Path) -> None:
    """A random BLIP of 6 x 6 patches in the hub's layout, with the fixture's words."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained("models/backbones/clip")
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    words = {"vocab_size": len(tokenizer), "pad_token_id": 0, "max_position_embeddings": 40}
    torch.manual_seed(0)
    config = BlipConfig(
        text_config={**tower, **words, "num_hidden_layers": 2},
        vision_config={**tower, "num_hidden_layers": 3, "image_size": 48, "patch_size": 8},
        image_text_hidden_size=DIM,
    )
    BlipForImageTextRetrieval(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_params(**changes) -> None:
    values = plain_values(**VALUES)
    shape = composed("profile=paper", "diffcomp=blip").diffcomp
    for name in ("super_patch", "eta", "css", "psm", "dac", "lambda_base", "phi", "grouping", "gradient_checkpointing"):
        values["diffcomp"][name] = getattr(shape, name)
    own = {"backbone": "blip", "pretrained": "", "image_size": 32, "local_blocks": 3, "lr": 1e-2}
    values["diffcomp"] |= own | changes
    Path("params.yaml").write_text(yaml.safe_dump(values))


def test_blip_is_trained_and_searched_with_at_another_size_than_its_checkpoints(workspace):
    write_blip(Path("blip"))
    write_params(image_layers=2, text_layers=1)
    train_diffcomp.main()
    models = Models(load_params())
    trained, untouched = models.diffcomp("diffcomp").encoder, models.backbone
    assert trained.patch_grid == untouched.patch_grid == (4, 4) and models.diffcomp("diffcomp").super_patches.count == 4
    assert BackboneSpace(models).identity["backbone"]["image_size"] == 32
    changed = {
        name
        for (name, after), before in zip(trained.named_parameters(), untouched.parameters(), strict=True)
        if not torch.equal(after, before)
    }
    assert any("vision_model.encoder.layers.1." in name for name in changed), "the last two of three"
    assert any("text_encoder.encoder.layer.1." in name for name in changed)
    frozen = ("layers.0.", "layer.0.", "embeddings", "crossattention", "itm_head")
    assert not [name for name in changed if any(part in name for part in frozen)]


def test_a_size_that_patches_do_not_tile_is_one_line(workspace):
    write_blip(Path("blip"))
    with pytest.raises(ArtifactError, match="blip: image_size 33 is not a multiple of the patches' 8 pixels"):
        load_dual_encoder("blip", image_size=33)


def test_super_patches_that_do_not_tile_that_size_are_refused_before_anything_is_read(workspace):
    write_blip(Path("blip"))
    write_params(super_patch=3)
    with pytest.raises(ParameterError, match="super_patch: 3 does not divide the patch grid 4 x 4"):
        train_diffcomp.main()

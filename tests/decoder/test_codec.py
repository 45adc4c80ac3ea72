import pytest
import torch
from diffusers import AutoencoderDC

from pipeline.artifacts import ArtifactError
from pipeline.decoder.codec import Latents, Pixels, open_codec


def test_pixels_come_back():
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    encoded = Pixels().encode(images)
    assert (float(encoded.min()), float(encoded.max())) == (-1.0, 1.0)
    assert torch.equal(Pixels().decode(encoded), images)
    assert torch.equal(Pixels().decode(torch.tensor([-3.0, 3.0])), torch.tensor([0, 255], dtype=torch.uint8))


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=8,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        scaling_factor=0.5,
    )


def test_latents_are_scaled_as_the_autoencoder_says(autoencoder):
    codec, images = Latents(autoencoder), torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    encoded = codec.encode(images)
    direct = autoencoder.encode(images.float() / 127.5 - 1.0).latent
    torch.testing.assert_close(encoded, 0.5 * direct)
    decoded = codec.decode(encoded)
    assert decoded.shape == images.shape and decoded.dtype == torch.uint8


def test_the_checkpoints_autoencoder_is_used(autoencoder, tmp_path):
    autoencoder.save_pretrained(tmp_path / "vae")
    assert isinstance(open_codec("", "", "cpu"), Pixels)
    codec, images = open_codec(str(tmp_path), "", "cpu"), torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    torch.testing.assert_close(codec.encode(images), Latents(autoencoder).encode(images))


def test_a_missing_checkpoint_is_named(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ArtifactError, match="decoder.checkpoint 'nobody/none'.*hf download nobody/none"):
        open_codec("nobody/none", "", "cpu")

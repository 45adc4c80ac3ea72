"""Blocks that several encoders share: computed once, and the same bits as by each encoder alone."""

from pathlib import Path

import pytest
import torch

from pipeline.encoders.dual.clip import ClipEncoder, new_clip
from pipeline.encoders.embedding.dual_gallery import encode_images
from pipeline.encoders.embedding.shared_blocks import SharedBlocks, SharingEncoder

TUNED = 1
SIZES = {
    "vocab_size": 8,
    "eos_id": 1,
    "image_size": 16,
    "vision_width": 32,
    "vision_layers": 3,
    "head_width": 16,
    "text_width": 16,
    "text_layers": 1,
    "text_heads": 1,
    "embed_dim": 12,
}


class Pictures:
    """Noise, and how often it was decoded."""

    def __init__(self, folder="pictures"):
        self.folder, self.decoded = Path(folder), 0

    def pixels(self, image_ids, size, fit):
        self.decoded += 1
        seeds = (torch.Generator().manual_seed(int(name)) for name in image_ids)
        return torch.stack([torch.randint(256, (3, size, size), dtype=torch.uint8, generator=seed) for seed in seeds])


@pytest.fixture
def make_encoder():
    def make(tuned_from=SIZES["vision_layers"], **sizes):
        """The same encoder every time, but for the blocks from a given one on, the head and the texts."""
        torch.manual_seed(0)
        encoder = ClipEncoder(new_clip(SIZES | sizes), None).eval()
        with torch.no_grad():
            for weight in (*encoder.image_blocks[tuned_from:].parameters(), *encoder.text_blocks.parameters()):
                weight.add_(0.1 * torch.randn_like(weight))
            for weight in encoder.image_head():
                weight.mul_(1.1)
        return encoder

    return make


@torch.inference_mode()
def test_a_tuned_encoder_gives_its_own_bits_and_decodes_nothing(make_encoder):
    shared, pictures, ids = SharedBlocks(TUNED), Pictures(), ["1", "2", "3"]
    for encoder in (make_encoder(), make_encoder(tuned_from=2)):
        joined = shared.join(encoder)
        assert isinstance(joined, SharingEncoder) and joined.dim == encoder.dim
        assert torch.equal(encode_images(joined, pictures, ids), encode_images(encoder, Pictures(), ids))
    assert pictures.decoded == 1


@torch.inference_mode()
def test_another_table_or_batch_is_not_mistaken_for_a_known_one(make_encoder):
    joined, other = SharedBlocks(TUNED).join(make_encoder()), Pictures("others")
    encode_images(joined, Pictures(), ["1", "2"])
    encode_images(joined, other, ["1", "2"])
    encode_images(joined, other, ["2", "1"])
    assert other.decoded == 2


@torch.inference_mode()
def test_what_does_not_fit_into_memory_is_computed_again(make_encoder):
    encoder, pictures = make_encoder(), Pictures()
    joined = SharedBlocks(TUNED, kept_bytes=100).join(encoder)
    expected = encode_images(encoder, pictures, ["1"])
    assert all(torch.equal(encode_images(joined, pictures, ["1"]), expected) for _ in range(2))
    assert pictures.decoded == 3


def test_encoders_that_differ_below_stay_by_themselves(make_encoder):
    shared = SharedBlocks(TUNED)
    shared.join(make_encoder())
    moved, resized = make_encoder(), make_encoder(image_size=32)
    moved.mean += 0.1
    frozen = make_encoder().requires_grad_(False)  # torch multiplies by frozen weights in another way
    for other in (make_encoder(tuned_from=1), make_encoder(vision_layers=4), moved, resized, frozen):
        assert shared.join(other) is other


def test_an_encoder_of_tuned_blocks_alone_shares_nothing(make_encoder):
    encoder = make_encoder()
    assert SharedBlocks(SIZES["vision_layers"]).join(encoder) is encoder

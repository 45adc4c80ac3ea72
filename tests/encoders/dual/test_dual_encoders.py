"""Image-text backbones: Table 1, the visual transformer in pieces, freezing, folders."""

import pipeline  # noqa: F401 (what it declares for torchvision comes before open_clip)

# isort: split
import open_clip
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BlipConfig, BlipForImageTextRetrieval, PreTrainedTokenizerFast

from pipeline.artifacts import ArtifactError
from pipeline.config import DiffCompParams
from pipeline.diffcomp import Batch, DiffComp, Phrases
from pipeline.encoders.dual import clip
from pipeline.encoders.dual.blip import BlipEncoder, blip_large_config
from pipeline.encoders.dual.clip import ClipEncoder, ClipSizes, build_clip, new_clip
from pipeline.encoders.dual.interface import DualEncoder
from pipeline.encoders.dual.open import load_dual_encoder
from tests.sections import section

# open_clip/BLIP sizes of Table 1: image, layers, width, text layers, text width, joint, trained layers, patches a side
TABLE_1 = {
    "ViT-L-14": (224, 24, 1024, 12, 768, 768, (12, 12), 16),
    "ViT-bigG-14": (224, 48, 1664, 32, 1280, 1280, (24, 24), 16),
    "blip": (224, 24, 1024, 12, 768, 256, (12, 12), 14),
}
WORDS = ["[PAD]", "[EOS]", "[UNK]", "a", "red", "blue", "ball", "cat", "dog", "with", "hat"]
SIZES = {
    "vocab_size": len(WORDS),
    "eos_id": 1,
    "image_size": 32,
    "vision_width": 64,
    "vision_layers": 3,
    "head_width": 32,
    "text_width": 64,
    "text_layers": 3,
    "text_heads": 2,
    "embed_dim": 48,
    "context": 12,
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def tokenizer():
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A [EOS]", special_tokens=[("[EOS]", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", eos_token="[EOS]", unk_token="[UNK]")


def small_clip() -> ClipEncoder:
    return ClipEncoder(new_clip(SIZES), tokenizer(), ClipSizes(**SIZES).model_cfg()).eval()


def small_blip() -> BlipEncoder:
    model = BlipForImageTextRetrieval(
        BlipConfig(
            vision_config={
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "image_size": 64,
            },
            text_config={
                "vocab_size": 40,
                "hidden_size": 48,
                "intermediate_size": 96,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "max_position_embeddings": 16,
                "bos_token_id": 3,
                "sep_token_id": 4,
            },
            image_text_hidden_size=32,
        )
    )
    for parameter in model.parameters():  # BLIP's own initial visual weights are nearly zero
        torch.nn.init.normal_(parameter, std=0.1)
    return BlipEncoder(model, None, context=16).eval()


def large(name: str) -> DualEncoder:
    with torch.device("meta"):
        if name == "blip":
            return BlipEncoder(BlipForImageTextRetrieval(blip_large_config()), None)
        return ClipEncoder(build_clip(open_clip.get_model_config(name)), None)


@pytest.mark.parametrize("name", TABLE_1)
def test_table_1(name):
    encoder = large(name)
    image, layers, width, text_layers, text_width, joint, trained, side = TABLE_1[name]
    assert (encoder.image_size, encoder.depth, encoder.width, encoder.dim) == (image, layers, width, joint)
    assert encoder.patch_grid == (side, side)
    assert len(encoder.text_blocks) == text_layers
    first = next(parameter for parameter in encoder.text_blocks[0].parameters() if parameter.ndim == 1)
    assert first.shape[0] in (text_width, 3 * text_width)

    encoder.freeze_all_but(*trained)
    for blocks, count in ((encoder.image_blocks, trained[0]), (encoder.text_blocks, trained[1])):
        training = [any(p.requires_grad for p in block.parameters()) for block in blocks]
        assert training == [False] * (len(blocks) - count) + [True] * count
    assert all(
        parameter.requires_grad for parameter in (*encoder.image_head(), *encoder.text_head(), encoder.logit_scale)
    )


@pytest.mark.parametrize("encoder", [small_clip, small_blip])
def test_pieces_equal_the_library(encoder):
    encoder = encoder()
    images = torch.randn(3, 3, encoder.image_size, encoder.image_size)
    with torch.no_grad():
        tokens = encoder.embed_patches(images)
        pieces = encoder.project(encoder.run(encoder.run(tokens, 0, 2), 2, 3)[:, 0])
        if isinstance(encoder, ClipEncoder):
            expected = encoder.model.encode_image(images, normalize=True)
        else:
            states = encoder.model.vision_model(images).last_hidden_state
            expected = torch.nn.functional.normalize(encoder.model.vision_proj(states[:, 0]), dim=-1)
    torch.testing.assert_close(pieces, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.encode_image(images), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoder", [small_clip, small_blip])
def test_padding_is_never_read(encoder):
    encoder = encoder()
    tokens = torch.randn(2, 5, encoder.width)
    padded = torch.cat([tokens, torch.full((2, 3, encoder.width), 7.0)], 1)
    bias = torch.zeros(2, 8).masked_fill(torch.arange(8) >= 5, float("-inf"))
    torch.testing.assert_close(encoder.run(padded, 0, 3, bias)[:, :5], encoder.run(tokens, 0, 3), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("encoder", [small_clip, small_blip])
def test_a_bias_of_nothing_changes_nothing(encoder):
    encoder = encoder()
    tokens = torch.randn(2, 5, encoder.width)
    torch.testing.assert_close(
        encoder.run(tokens, 0, 3, torch.zeros(2, 5)), encoder.run(tokens, 0, 3), atol=1e-5, rtol=1e-4
    )


def test_clip_text_is_cut_to_the_batch_without_changing_it():
    encoder = small_clip()
    ids = encoder.tokenize(["a red ball", "dog"])
    assert ids.shape == (2, 12) and ids[1].tolist()[:3] == [8, 1, 0]
    torch.testing.assert_close(
        encoder.encode_text(ids), encoder.model.encode_text(ids, normalize=True), atol=1e-5, rtol=0
    )


def test_many_short_texts_are_encoded_apart_and_alike(monkeypatch):
    encoder, widths = small_clip(), []
    ids = encoder.tokenize(["a red ball with a blue hat", "dog", "a cat", "a cat with a red hat", "hat"])
    expected = encoder.model.encode_text(ids, normalize=True)
    encoder.text_blocks[0].register_forward_pre_hook(lambda _, inputs: widths.append(tuple(inputs[0].shape[:2])))
    for least, shapes in ((4, [(5, 8)]), (3, [(3, 3), (2, 8)])):
        monkeypatch.setattr(clip, "SHORT_TEXTS", least)
        widths.clear()
        torch.testing.assert_close(encoder.encode_text(ids), expected, atol=1e-5, rtol=0)
        assert widths == shapes


def test_clip_text_end_is_found_in_a_truncated_text_and_wherever_its_id_lies():
    encoder = small_clip()
    ids = encoder.tokenize(["ball " * 40, "cat"])
    assert (ids == 1).sum(1).tolist() == [1, 1]
    short, long = encoder.encode_text(ids[1:]), encoder.encode_text(ids)[1:]
    torch.testing.assert_close(short, long, atol=1e-5, rtol=0)


def test_blip_text_equals_the_library():
    encoder = small_blip()
    ids = torch.tensor([[5, 6, 7, 0, 0, 0], [5, 6, 7, 8, 9, 0]])
    states = encoder.model.text_encoder(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
    expected = torch.nn.functional.normalize(encoder.model.text_proj(states[:, 0]), dim=-1)
    torch.testing.assert_close(encoder.encode_text(ids), expected, atol=1e-5, rtol=0)


def test_named_model_runs_open_clips_own_tokenizer():
    config = open_clip.get_model_config("ViT-L-14")
    config["vision_cfg"].update(layers=1, width=64, image_size=28)
    config["text_cfg"].update(layers=1, width=64, heads=2)
    encoder = ClipEncoder(build_clip(config), open_clip.get_tokenizer("ViT-L-14")).eval()
    ids = encoder.tokenize(["a red ball", "a photograph of a small dog"])
    assert ids.shape == (2, 77)
    torch.testing.assert_close(
        encoder.encode_text(ids), encoder.model.encode_text(ids, normalize=True), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("encoder", [small_clip, small_blip])
def test_checkpointing_changes_no_gradient(encoder):
    encoder = encoder()
    encoder.freeze_all_but(1, 1)
    images = torch.randn(2, 3, encoder.image_size, encoder.image_size)
    gradients = []
    for encoder.gradient_checkpointing in (False, True):
        encoder.zero_grad()
        encoder.encode_image(images)[:, 0].sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.image_blocks[-1].parameters()]))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("encoder", [small_clip, small_blip])
def test_text_blocks_are_checkpointed_too(encoder):
    encoder = encoder().train()
    encoder.freeze_all_but(0, len(encoder.text_blocks))
    ids, runs, gradients = torch.tensor([[5, 6, 1, 0], [5, 7, 8, 1]]), [], []
    encoder.text_blocks[0].register_forward_pre_hook(lambda *_: runs.append(1))
    for encoder.gradient_checkpointing in (False, True):
        encoder.zero_grad()
        encoder.encode_text(ids)[:, 0].sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.text_blocks.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients)
    assert len(runs) == 1 + 2  # once more, to have the activations again


@pytest.mark.parametrize(
    "values", [{}, {"grouping": "kmeans"}, {"css": False}, {"gradient_checkpointing": True}], ids=str
)
@pytest.mark.parametrize("encoder", [small_clip, small_blip])
def test_diffcomp_trains_over_either_backbone(encoder, values):
    encoder = encoder()
    model = DiffComp(encoder, section(DiffCompParams, image_layers=1, text_layers=1, **values)).train()
    images, ids = (
        torch.randn(3, 3, encoder.image_size, encoder.image_size),
        torch.tensor([[5, 6, 1], [7, 8, 1], [5, 8, 1]]),
    )
    batch = Batch(images, ids, phrases=Phrases(ids, torch.arange(4)))
    model(batch, torch.Generator().manual_seed(0))["loss"].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    composed = model.eval().compose(images, ids)
    assert composed.shape == (3, encoder.dim)
    torch.testing.assert_close(composed.norm(dim=-1), torch.ones(3))


def test_a_tower_without_trained_blocks_is_frozen_as_a_whole():
    encoder = small_clip()
    encoder.freeze_all_but(1, 0)
    text = (*encoder.text_blocks.parameters(), *encoder.text_head())
    assert not any(parameter.requires_grad for parameter in text)
    assert all(parameter.requires_grad for parameter in encoder.image_head())


def test_freezing_more_blocks_than_there_are_is_refused():
    with pytest.raises(ValueError, match="image_layers: 4 .* 3"):
        small_clip().freeze_all_but(4, 1)


def test_folder_round_trip_is_also_open_clips(tmp_path):
    encoder, folder = small_clip(), tmp_path / "clip"
    encoder.save(folder)
    again = load_dual_encoder(folder).eval()
    images = torch.randn(2, 3, 32, 32)
    ids = again.tokenize(["a blue hat"])
    assert torch.equal(again.encode_image(images), encoder.encode_image(images))
    assert torch.equal(again.encode_text(ids), encoder.encode_text(ids))
    theirs = open_clip.create_model(f"local-dir:{folder}").eval()
    torch.testing.assert_close(
        theirs.encode_image(images, normalize=True), encoder.encode_image(images), atol=1e-5, rtol=0
    )
    assert torch.equal(open_clip.get_tokenizer(f"local-dir:{folder}")(["a blue hat"]), ids)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match="tokenizer.json"):
        load_dual_encoder(folder)


def test_resized_positions_are_the_librarys():
    """BLIP's checkpoints are of 384 pixels; transformers interpolates their positions for every image anew."""
    encoder = small_blip()
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        seen = encoder.model.vision_model(images, interpolate_pos_encoding=True).last_hidden_state[:, 0]
        expected = torch.nn.functional.normalize(encoder.model.vision_proj(seen), dim=-1)
        encoder.resize(32)
        torch.testing.assert_close(encoder.encode_image(images), expected, atol=1e-5, rtol=0)
    assert (encoder.image_size, encoder.patch_grid) == (32, (2, 2))


@pytest.mark.parametrize("make", [small_clip, small_blip])
def test_an_encoder_of_another_size_trains(make):
    encoder = make()
    before, patch = encoder.positions.detach().clone(), encoder.image_size // encoder.patch_grid[0]
    encoder.resize(encoder.image_size)
    assert torch.equal(encoder.positions, before)
    encoder.resize(6 * patch)
    assert encoder.positions.shape[-2:] == (37, encoder.width)
    assert torch.equal(encoder.positions.reshape(37, -1)[0], before.reshape(-1, encoder.width)[0]), "CLS keeps its own"
    encoder.encode_image(torch.randn(2, 3, 6 * patch, 6 * patch)).sum().backward()
    assert encoder.positions.grad.shape == encoder.positions.shape
    with pytest.raises(ValueError, match=f"image_size {6 * patch + 1} is not a multiple of the patches' {patch}"):
        encoder.resize(6 * patch + 1)


def test_unknown_backbones_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="neither"):
        load_dual_encoder(tmp_path)
    with pytest.raises(ArtifactError, match="no-such-model"):
        load_dual_encoder("no-such-model")


def test_sizes_that_cannot_hold_are_refused_with_their_numbers():
    with pytest.raises(ValueError, match="image_size 60 .* patch_size 8"):
        new_clip({**SIZES, "image_size": 60})
    with pytest.raises(ValueError, match="eos_id 99 .* 11"):
        new_clip({**SIZES, "eos_id": 99})
    with pytest.raises(ValueError, match="depth"):
        new_clip({**SIZES, "depth": 3})


def test_normalise_uses_the_encoders_own_statistics():
    encoder = ClipEncoder(new_clip(SIZES), None, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 32, 32)
    assert encoder.normalise(images)[:, 0, 0, 0].tolist() == [-2.0, 2.0]

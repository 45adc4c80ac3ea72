from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.artifacts import ArtifactError
from pipeline.artifacts.model_files import skip_model
from pipeline.config import ImagineParams, Speed
from pipeline.decoder import Decoder, DecoderTask, load_decoder, save_decoder
from pipeline.decoder.checkpoints import new_decoder
from pipeline.decoder.codec import Pixels
from pipeline.decoder.flow import Flow
from pipeline.decoder.imagine import Imagination
from pipeline.encoders.identity import mllm_identity
from pipeline.training import Run, train
from tests.gpu.tape import tapes  # noqa: F401  (a fixture)
from tests.sections import plain_params, section


@pytest.fixture
def images():
    """Four plain images, uint8 [4, 3, 16, 16]."""
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], dtype=torch.uint8)
    return colours[:, :, None, None].expand(4, 3, 16, 16).contiguous()


@pytest.fixture
def z(sizes):
    """Features, of which the images have every second one."""
    return F.normalize(torch.randn(8, sizes.dim, generator=torch.Generator().manual_seed(3)), dim=1)


@pytest.fixture
def make_task(sizes, images, z, make_params):
    def make(**changes):
        torch.manual_seed(1)
        return DecoderTask(Decoder(sizes), Pixels(), images, z, torch.arange(4) * 2, make_params(**changes))

    return make


def test_what_is_decoded_is_what_z_belongs_to(make_task, make_params, tmp_path, images, z):
    changes = {"steps": 250, "batch_size": 16, "lr": 3e-3, "z_noise": 0.1, "ema_decay": 0.9}
    task = make_task(**changes)
    log = train(task, make_params(**changes), Run(0, tmp_path, {}, "cpu"))
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]
    imagine = section(ImagineParams, solver_steps=8, guidance_scale=1.5)
    imagination = Imagination(task.model, Pixels(), Flow(1.0), imagine, seed=0)
    found = imagination.pixels(5.0 * z[::2].numpy())  # whatever its length
    distance = (found[:, None].float() - images[None].float()).abs().mean((2, 3, 4))  # [decoded, images]
    assert distance.argmin(1).tolist() == [0, 1, 2, 3]
    assert distance.diagonal().max() < 40
    assert torch.equal(found, imagination.pixels(z[::2].numpy()))
    assert imagination.images(z[:1].numpy())[0].size == (16, 16)


def test_a_resumed_training_ends_as_one_that_was_not_stopped(make_task, make_params, tmp_path, monkeypatch):
    params = make_params(checkpoint_every=2)
    whole, cut = make_task(), make_task()
    train(whole, params, Run(0, tmp_path / "whole", {}, "cpu"))
    loss = cut.loss
    calls = iter(range(100))

    def stops(*arguments):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(cut, "loss", stops)
    with pytest.raises(KeyboardInterrupt):
        train(cut, params, Run(0, tmp_path / "cut", {}, "cpu"))
    resumed = make_task()
    train(resumed, params, Run(0, tmp_path / "cut", {}, "cpu"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_images_and_features_must_go_together(sizes, images, z, make_params):
    with pytest.raises(ValueError, match="4 images, but features of 3"):
        DecoderTask(Decoder(sizes), Pixels(), images, z, torch.arange(3), make_params())


def test_a_stored_decoder_is_the_same_to_half_precision(decoder, make_params, tmp_path, sizes):
    save_decoder(tmp_path / "decoder", decoder, make_params(shift=2.0), {"embedder": {"path": "one"}})
    loaded, config = load_decoder(tmp_path / "decoder", embedder={"path": "one"})
    assert loaded.sizes == sizes and config["shift"] == 2.0 and not loaded.training
    for name, value in decoder.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.half().float())
    with pytest.raises(ArtifactError, match="trained with embedder = .*another"):
        load_decoder(tmp_path / "decoder", embedder={"path": "another"})


def test_a_decoder_that_is_not_there_says_why(tmp_path):
    skip_model(tmp_path / "none", "nobody trained it")
    with pytest.raises(ArtifactError, match="there is no decoder: nobody trained it"):
        load_decoder(tmp_path / "none")
    assert Imagination.open_fitting(plain_params(), tmp_path / "none") is None


def test_a_decoder_of_another_f_m_is_not_opened(decoder, make_params, tmp_path):
    params = plain_params()
    save_decoder(tmp_path / "one", decoder, make_params(), mllm_identity(params.embedder))
    save_decoder(tmp_path / "other", decoder, make_params(), {"embedder": {"path": "another"}})
    assert Imagination.open_fitting(params, tmp_path / "one") is not None
    assert Imagination.open_fitting(params, tmp_path / "other") is None
    with pytest.raises(ArtifactError, match="embedder"):
        Imagination.open(params, tmp_path / "other")


def test_training_starts_from_the_checkpoint(make_params, sizes, tmp_path):
    sana = Decoder(replace(sizes, channels=32, side=2, patch_size=1, positions=False)).transformer
    sana.save_pretrained(tmp_path / "transformer")
    params = make_params(checkpoint=str(tmp_path), image_size=64, patch_size=1, positions=False)
    decoder = new_decoder(params, sizes.dim)
    for name, value in sana.state_dict().items():
        assert torch.equal(value, decoder.transformer.state_dict()[name]), name
    params = make_params(checkpoint=str(tmp_path), image_size=64, patch_size=1, positions=False, layers=3)
    with pytest.raises(ArtifactError, match="num_layers is 2, and the parameters of decoder ask for 3"):
        new_decoder(params, sizes.dim)


def test_a_fast_search_records_the_decoder(decoder, make_params, tmp_path, sizes, tapes, monkeypatch):  # noqa: F811
    params = plain_params()
    identity = mllm_identity(params.embedder)["embedder"]
    save_decoder(tmp_path / "decoder", decoder, make_params(), {"embedder": identity})
    z = np.random.default_rng(0).normal(size=(3, sizes.dim)).astype(np.float32)
    plain = Imagination.open(params, tmp_path / "decoder").pixels(z)
    assert not tapes
    params.retrieve.fast = True
    assert torch.equal(Imagination.open(params, tmp_path / "decoder").pixels(z), plain) and not tapes  # on a CPU
    monkeypatch.setattr(Speed, "on", lambda speed, where: speed)  # as on a GPU
    found = Imagination.open(params, tmp_path / "decoder").pixels(z)
    assert (found.int() - plain.int()).abs().max() <= 1 and [tape.replays for tape in tapes] == [
        params.imagine.solver_steps
    ]

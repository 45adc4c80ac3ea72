"""The benchmark of DiffComp's cost: what it measures, over a model of a few thousand weights. No timing is asserted."""

import pipeline  # noqa: F401 (what it declares for torchvision comes before open_clip)

# isort: split
import open_clip
import pytest
import torch
from typer.testing import CliRunner

from bench import diffcomp
from pipeline.artifacts import read_json, write_json
from pipeline.config import DiffCompParams
from pipeline.diffcomp import DiffComp
from pipeline.encoders.dual.clip import ClipEncoder, build_clip
from tests.sections import section

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


@pytest.fixture
def encoder(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: TINY)
    return ClipEncoder(build_clip(TINY), None, TINY)


def test_the_made_up_batch_is_what_the_model_takes(encoder):
    batch = diffcomp.made_up_batch(encoder, 6)
    lengths = batch.text_ids.argmax(1)
    assert ((lengths >= 8) & (lengths <= 20)).all() and (
        (batch.phrases.ids.argmax(1) >= 1) & (batch.phrases.ids.argmax(1) <= 4)
    ).all()
    assert len(batch.phrases.ids) == 18 == int(batch.phrases.offsets[-1])
    same = (batch.composition_ids[:, None] == torch.stack([batch.text_ids, batch.phrases.ids[::3]], 1)).all(-1)
    assert same.any(1).all() and same[:, 0].any() and same[:, 1].any()
    terms = DiffComp(encoder, section(DiffCompParams, image_layers=1, text_layers=1))(
        batch, torch.Generator().manual_seed(0)
    )
    assert terms["loss"].isfinite()


def test_the_plain_step_is_open_clips(encoder):
    """The same loss, gradients and trained parameters: a fair peer."""
    model = DiffComp(encoder, section(DiffCompParams, image_layers=1, text_layers=1))
    batch, losses, gradients = diffcomp.made_up_batch(encoder, 5), [], []
    for step in (diffcomp.plain_step, diffcomp.open_clip_step):
        model.zero_grad()
        losses.append(step(model, batch)())
        losses[-1].backward()
        gradients.append({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*losses)
    assert (
        gradients[0].keys()
        == gradients[1].keys()
        == {name for name, p in encoder.named_parameters() if p.requires_grad}
    )
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], atol=1e-6, rtol=1e-3)


def test_the_command_writes_its_figures(encoder, tmp_path):
    out = tmp_path / "diffcomp.json"
    arguments = ["--super-patch", "2", "--batch", "4", "--trained", "1", "--repeats", "1", "--out", str(out)]
    done = CliRunner().invoke(diffcomp.app, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and "| diffcomp, checkpointed |" in done.output
    result = read_json(out)
    assert list(result["encoding"]["local_blocks"]) == ["1", "2", "3"]
    steps = result["training"]
    assert steps["diffcomp"]["times_plain"] == pytest.approx(
        steps["diffcomp"]["seconds"] / steps["plain"]["seconds"], rel=0.05
    )
    assert result["reached"]["step_within"] == (steps["diffcomp_k1"]["times_plain"] <= 2.4)
    within = [int(k) for k, cost in result["encoding"]["local_blocks"].items() if cost["added"] <= 0.07]
    assert result["reached"]["local_blocks_within"] == within
    for name, operators in (("plain", "flash"), ("masked", "math")):  # flash attention takes no bias
        assert all(operators in operator for operator in result["attention"][name]["operators"])


def test_a_local_backbone_pools_where_its_texts_end(tmp_path):
    """A small vocabulary's end is not its highest number: what is made up stays below it and ends once."""
    text = TINY["text_cfg"] | {
        "vocab_size": 100,
        "eos_id": 2,
        "pad_id": 0,
        "pool_type": "eos",
        "hf_tokenizer_name": ".",
    }
    config = TINY | {"custom_text": True, "text_cfg": text}
    write_json(tmp_path / "open_clip_config.json", {"model_cfg": config})
    read = diffcomp.model_config(str(tmp_path))
    assert read == config
    ids = diffcomp.made_up_batch(ClipEncoder(build_clip(read), None, read), 6).text_ids
    ends = (ids == 2).int().argmax(1)
    assert ids.max() < 100 and ((ids == 2).sum(1) == 1).all() and ((ends >= 8) & (ends <= 20)).all()


def test_an_unknown_model_is_one_error(tmp_path):
    done = CliRunner().invoke(diffcomp.app, ["--model", "no-such", "--out", str(tmp_path / "out.json")])
    assert done.exit_code == 1 and "'no-such' is neither" in done.output and not (tmp_path / "out.json").exists()


def test_operations_are_counted(encoder, tmp_path):
    """A DiffComp step encodes every image twice, once with a graph through frozen blocks; k = L reads patches again."""
    out = tmp_path / "operations.json"
    arguments = ["--super-patch", "2", "--batch", "4", "--trained", "1", "--count", "--out", str(out)]
    done = CliRunner().invoke(diffcomp.app, arguments, catch_exceptions=False)
    result = read_json(out)
    assert done.exit_code == 0 and 2 < result["step_in_plain_steps"] < 4
    assert 0 < result["css_added"]["1"] < result["css_added"]["2"] < result["css_added"]["3"]

"""What the large profiles name: models, data, counts; and the checkpoints that an embedder can be."""

import json
from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from pipeline.config import ParameterError
from pipeline.config.patch_grid import patch_grid
from pipeline.sources.benchmarks.registry import READERS
from tests.sections import ROOT, composed, profile

SOURCES = {"cc3m": 2.94e6, "cc12m": 12.4e6, "journeydb": 4.4e6, "sa1b": 11.1e6}
"""About how many images a source has; of CC3M, those whose addresses still answer."""
PRESETS = sorted(path.stem for path in (ROOT / "conf" / "embedder").glob("*.yaml"))


def models(params):
    """The checkpoints, in the order of the sections."""
    sections = (params.embedder, params.describer, params.captioner, params.text_encoder)
    return tuple(section.path for section in sections)


def pairs(params):
    """How many pairs Stage 1 has of a long caption, and of a short one."""
    data, share = params.prior.data, params.captions.long_share
    images = sum(SOURCES[name] for name in data.sources)
    beside = sum(SOURCES[name] for name in data.short_sources) * data.short_share * share
    return images * share, images * (1 - share) + beside


def test_paper():
    params = profile("paper")
    chat = "Qwen/Qwen2.5-VL-{}B-Instruct".format
    assert models(params) == (chat(72), chat(72), chat(7), "city96/t5-v1_1-xxl-encoder-bf16")
    assert params.embedder.dim == 1536 and params.embedder.backend == "vllm" and params.embedder.targets == "fused"
    assert (params.text_encoder.dtype, params.text_encoder.max_tokens) == ("bfloat16", 300)
    assert params.data.triplets == 200_000 and params.data.web.edits == ["hqedit"]
    assert params.data.web.pairs == list(SOURCES) and not params.data.copy
    assert params.data.benchmarks == ["fashioniq", "cirr", "circo", "genecis"]
    long, short = pairs(params)
    assert long == pytest.approx(28e6, rel=0.01) and short == pytest.approx(5e6, rel=0.01)
    assert params.prior.data.short_sources == ["cc12m"] and "cc3m" not in params.prior.data.sources
    assert params.prior.steps * params.prior.batch_size == pytest.approx(4 * 33e6, rel=0.02)
    assert params.control.steps * params.control.batch_size == pytest.approx(2 * 200e3, rel=0.03)
    assert (params.prior.width, params.prior.heads, params.prior.depth, params.prior.patch_size) == (1152, 16, 28, 2)
    assert (params.retrieve.solver_steps, params.retrieve.guidance_scale) == (14, 2.5)


def test_sweeps_and_ablations_of_the_large_profiles_are_of_benchmarks_that_they_prepare():
    for params in (profile("paper"), profile("lab")):
        read = {READERS[name].name: READERS[name].selection(params.data) for name in params.data.benchmarks}
        clothes = read.pop("fashioniq")
        folders = {f"fashioniq_{part}_{split}" for part in clothes.parts for split in clothes.splits}
        folders |= {f"{name}_{split}" for name in ("cirr", "circo") for split in read[name].splits}
        assert params.sweep.benchmark == "cirr_val" and params.sweep.benchmark in folders
        assert set(params.ablations.benchmarks) <= folders - {"cirr_test1", "circo_test"}, "those have private targets"
        assert {name.split("_")[0] for name in params.ablations.benchmarks} == {"fashioniq", "cirr", "circo"}


BACKBONES = {
    "clip-l": ("ViT-L-14-quickgelu", 12, 4, 0.7, 64, 24),
    "clip-g": ("ViT-bigG-14", 24, 4, 0.7, 128, 48),
    "blip": ("Salesforce/blip-itm-large-coco", 12, 2, 0.5, 64, 24),
}
"""Of DiffComp's supplement: trained blocks of either tower, S, eta, batch; and the depth."""


@pytest.mark.parametrize("preset", BACKBONES)
def test_diffcomps_three_backbones(preset):
    params = composed("profile=paper", f"diffcomp={preset}")
    section = params.diffcomp
    backbone, layers, side, eta, batch, depth = BACKBONES[preset]
    assert (section.backbone, section.super_patch, section.eta, section.batch_size) == (backbone, side, eta, batch)
    assert (section.image_layers, section.text_layers, section.local_blocks) == (layers, layers, depth)
    assert (section.data.sources, section.data.share, section.lr) == (["cc3m"], 0.1, 1e-6)
    assert section.steps * batch == pytest.approx(10 * 0.1 * SOURCES["cc3m"], rel=0.01), "10 epochs"
    assert (section.lambda_base, section.phi, section.text, section.fill) == (0.8, 0.4, "caption", "nothing")
    own = composed("profile=paper")
    assert replace(params, diffcomp=own.diffcomp) == own, "nothing else changes"


def test_blip_at_224_pixels_has_patches_that_its_super_patches_tile(tmp_path):
    section = composed("profile=paper", "diffcomp=blip").diffcomp
    config = {"model_type": "blip", "vision_config": {"image_size": 384, "patch_size": 16}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert patch_grid(str(tmp_path)) == (24, 24) and patch_grid(str(tmp_path), section.image_size) == (14, 14)
    here = replace(section, backbone=str(tmp_path))
    here.check_grid()
    with pytest.raises(ParameterError, match="super_patch: 4 does not divide the patch grid 14 x 14"):
        replace(here, super_patch=4).check_grid()


def test_lab():
    params = profile("lab")
    assert models(params) == (
        "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        "Qwen/Qwen2.5-VL-3B-Instruct",
        "google-t5/t5-large",
    )
    assert params.data.web.pairs == ["cc3m"] and params.data.web.edits == ["hqedit"]
    assert params.embedder.dim == 1536 and params.text_encoder.dim == 1024
    assert params.text_encoder.dtype == "bfloat16" and params.diffcomp.backbone == "ViT-L-14-quickgelu"
    assert params.data.triplets == 100_000 and params.captions.long_share == 0.25
    assert sum(pairs(params)) == SOURCES["cc3m"] and pairs(params)[0] == 0.25 * SOURCES["cc3m"]
    assert (params.diffcomp.data.sources, params.diffcomp.data.share) == (["cc3m"], 0.1)
    one_gpu = (params.embedder, params.describer, params.captioner)
    assert all(section.vllm["tensor_parallel_size"] == 1 for section in one_gpu)
    paper = profile("paper").prior
    assert params.prior.width * params.prior.depth < paper.width * paper.depth / 2
    assert 4 <= params.prior.steps * params.prior.batch_size / 3e6 < 4.5  # passes over CC3M, as many as the paper's
    assert params.data.benchmarks == profile("paper").data.benchmarks


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["paper", "lab"])
def test_an_embedder_changes_nothing_else(name, preset):
    params, own = composed(f"profile={name}", f"embedder={preset}", "embedder.batch_size=7"), profile(name)
    chosen = OmegaConf.load(ROOT / "conf" / "embedder" / f"{preset}.yaml")
    assert (params.embedder.path, params.embedder.revision) == (chosen.path, chosen.revision)
    assert params.embedder.batch_size == 7 and params.embedder.max_side == own.embedder.max_side
    assert models(params)[1:] == models(own)[1:]
    assert params.describer.vllm == own.describer.vllm and params.captioner.vllm == own.captioner.vllm


def test_instructions_stand_where_the_checkpoints_expect_them():
    gme = composed("profile=lab").embedder
    filled = gme.embed_template.format(instruction=gme.document_instruction, image="<image>", text="red")
    assert filled == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<image>red<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
    )
    qwen3 = composed("profile=lab", "embedder=qwen3-vl-embedding-2b").embedder
    assert qwen3.document_instruction == "Represent the user's input." and qwen3.embed_template.endswith("assistant\n")
    assert qwen3.dim == 1536 and gme.query_instruction != gme.document_instruction
    chat = composed("profile=lab", "embedder=qwen2.5-vl-3b").embedder
    assert "{instruction}" not in chat.embed_template and chat.query_instruction == ""


def test_sections_fall_back_to_the_one_before():
    params = composed("embedder.path=models/mine", "embedder.max_side=32", "describer.batch_size=3")
    assert models(params)[:3] == ("models/mine",) * 3
    assert (params.describer.max_side, params.captioner.batch_size) == (32, 3)

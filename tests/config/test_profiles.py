"""What the large profiles name: models, data, counts; and the checkpoints that an embedder can be."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pipeline.config import params_from_dict
from tests.sections import ROOT, profile

PRESETS = sorted(path.stem for path in (ROOT / "conf" / "embedder").glob("*.yaml"))


def composed(*overrides):
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        values = OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True)
    return params_from_dict(values)


def models(params):
    """The checkpoints, in the order of the sections."""
    sections = (params.embedder, params.describer, params.captioner, params.text_encoder)
    return tuple(section.path for section in sections)


def test_paper():
    params = profile("paper")
    chat = "Qwen/Qwen2.5-VL-{}B-Instruct".format
    assert models(params) == (chat(72), chat(72), chat(7), "city96/t5-v1_1-xxl-encoder-bf16")
    assert params.embedder.dim == 1536 and params.embedder.backend == "vllm" and params.embedder.targets == "fused"
    assert (params.diffcomp.backbone, params.diffcomp.pretrained) == ("ViT-L-14-quickgelu", "openai")
    assert params.data.triplets == 200_000 and abs(params.captions.long_share - 28 / 33) < 1e-4
    assert params.data.web.pairs == ["cc3m", "cc12m", "journeydb", "sa1b"] and params.data.web.edits == ["hqedit"]
    assert params.data.benchmarks == ["fashioniq", "cirr", "circo", "genecis"] and not params.data.copy


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
    assert params.data.triplets == 100_000 and params.captions.long_share == 0.25
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

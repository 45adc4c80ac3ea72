"""Typed parameters: every mistake is one error that names the parameter."""

import pipeline  # noqa: F401 (what it declares for torchvision comes before open_clip)

# isort: split
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import open_clip
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pipeline.artifacts import read_json
from pipeline.config import (
    ParameterError,
    Params,
    PriorParams,
    Speed,
    as_dict,
    load_params,
    load_profile,
    params_from_dict,
    section_from_dict,
)
from pipeline.config.patch_grid import patch_grid
from pipeline.encoders.dual.clip import CLIP_CONFIG, ClipEncoder, build_clip
from tests.sections import ROOT, plain_params, plain_values, profile

PROFILES = ("offline", "smoke", "paper", "lab")


def composed(profile: str):
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return compose("config", overrides=[f"profile={profile}"])


def leaves(values: dict, prefix: str = "") -> set[str]:
    names = set()
    for key, value in values.items():
        names |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return names


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"nope": 1}, "nope"),
        ({"prior": {"lrr": 1e-3}}, "prior.lrr"),
        ({"prior": {"lr": "fast"}}, "prior.lr"),
        ({"prior": {"diffusion": {"train_steps": 1.5}}}, "prior.diffusion.train_steps"),
        ({"prior": 3}, "prior"),
        ({"prior": {"schedule": "step"}}, "prior.schedule: 'step' is not one of cosine, constant"),
        ({"control": {"steps": 0}}, "control.steps: 0 is not at least 1"),
        ({"prior": {"diffusion": {"prediction": "x"}}}, "prior.diffusion.prediction: 'x' is not one of epsilon, v_pre"),
        ({"data": {"benchmarks": ["cirr", "coco"]}}, "data.benchmarks: ['coco'] are not among emoji_cir, fashioniq"),
        ({"data": {"fashioniq": {"categories": ["hat"]}}}, "data.fashioniq.categories: ['hat'] are not among dress"),
        ({"index": {"pq_bits": 5}}, "index.pq_bits: 5 is not one of 4, 8"),
        ({"data": {"triplets": [1]}}, "data.triplets"),
        ({"diffcomp": {"text": "sentence"}}, "diffcomp.text"),
        ({"diffcomp": {"eta": 1.5}}, "diffcomp.eta"),
        ({"embedder": {"backend": "tgi"}}, "embedder.backend"),
        ({"retrieve": {"fuse": "median"}}, "retrieve.fuse"),
        ({"retrieve": {"guided_share": 0.0}}, "retrieve.guided_share"),
        ({"retrieve": {"fp8": True}}, "retrieve.fp8 needs retrieve.fast"),
        ({"prior": {"fp8": True}}, "prior.fp8 needs prior.fused"),
        ({"control": {"fp8": True}}, "control.fp8 needs control.fused"),
        ({"retrieve": {"hypotheses": 3, "descriptions": 2}}, "retrieve.hypotheses"),
        ({"diffcomp_variants": {"mine": {"etaa": 0.5}}}, "diffcomp_variants.mine.etaa"),
        ({"diffcomp_variants": {"mine": {"eta": "much"}}}, "diffcomp_variants.mine.eta"),
        ({"diffcomp_variants": {"mine": {"masking": "all"}}}, "diffcomp_variants.mine"),
    ],
)
def test_a_wrong_parameter_is_named(values, name):
    with pytest.raises(ParameterError) as caught:
        plain_params(**values)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("backbone", "side", "grid"),
    [
        ("models/backbones/clip", 3, "8 x 8"),
        ("ViT-L-14", 3, "16 x 16"),
        ("ViT-bigG-14", 5, "16 x 16"),
        ("blip", 4, "14 x 14"),
    ],
)
def test_a_grid_that_does_not_divide_the_patch_grid_is_refused_when_loaded(backbone, side, grid, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    if backbone == "blip":
        backbone = str(tmp_path)
        (tmp_path / "config.json").write_text(
            '{"model_type": "blip", "vision_config": {"image_size": 224, "patch_size": 16}}'
        )
    values = {"diffcomp": {"backbone": backbone}, "diffcomp_variants": {"mine": {"super_patch": side}}}
    with pytest.raises(
        ParameterError,
        match=f"diffcomp_variants.mine: diffcomp.super_patch: {side} does not divide the patch grid {grid}",
    ):
        plain_params(**values)
    for harmless in ({"super_patch": 2}, {"super_patch": side, "css": False}):
        plain_params(**{**values, "diffcomp_variants": {"mine": harmless}})
    # The grid of a name on a hub is seen when the model is built.
    plain_params(**{**values, "diffcomp": {"backbone": "a/name-of-a-hub"}})


def test_the_grid_read_from_the_configuration_is_the_models(monkeypatch):
    monkeypatch.chdir(ROOT)
    for backbone in ("models/backbones/clip", "ViT-L-14", "ViT-bigG-14"):
        with torch.device("meta"):
            config = open_clip.get_model_config(backbone) or read_json(Path(backbone) / CLIP_CONFIG)["model_cfg"]
            assert patch_grid(backbone) == ClipEncoder(build_clip(config), None).patch_grid


def test_a_missing_file_and_a_file_that_is_no_mapping(tmp_path):
    with pytest.raises(ParameterError, match="no such parameter file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("- 1\n")
    with pytest.raises(ParameterError, match="not a mapping"):
        load_params(tmp_path / "params.yaml")


def test_an_unknown_profile_names_those_there_are():
    with pytest.raises(ParameterError, match="'huge' is not one of lab, offline, paper, smoke"):
        load_profile("huge", ROOT / "conf")


def test_no_parameter_has_a_default_in_the_code():
    """conf/ is the one place of a value; a section that two others share is off where nobody turns it on."""
    sections = [Params]
    for section in sections:
        hints = get_type_hints(section)
        sections += [hints[field.name] for field in fields(section) if is_dataclass(hints[field.name])]
        given = {field.name for field in fields(section) if field.default is MISSING is field.default_factory}
        assert {field.name for field in fields(section)} - given <= {field.name for field in fields(Speed)}
    assert len(sections) > 20


def test_missing_parameters_are_counted_and_the_first_is_named():
    values = plain_values()
    del values["seed"], values["prior"]["lr"], values["prior"]["fp8"]
    with pytest.raises(ParameterError, match="^here: 3 parameters are missing, the first is 'seed'$"):
        params_from_dict(values, "here")


def test_a_choice_is_a_plain_string_of_the_identity():
    assert type(as_dict(profile("offline").index)["kind"]) is str


def test_values_take_their_parameters_types():
    stored = as_dict(profile("offline").prior)
    again = section_from_dict(PriorParams, stored | {"lr": "2e-4", "clip_norm": 1, "steps": "7"}, "here")
    assert (again.lr, again.steps) == (2e-4, 7) and type(again.clip_norm) is float


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_spells_out_every_parameter(name):
    """`-S` can override everything, and params.yaml tells DVC of everything."""
    params = profile(name)
    assert params.profile == name
    assert leaves(OmegaConf.to_container(composed(name), resolve=True)) == leaves(as_dict(params))


def test_params_yaml_is_the_offline_profile():
    """Mend it with `dvc exp run -S profile=offline`."""
    assert OmegaConf.load(ROOT / "params.yaml") == composed("offline")


def test_a_variant_is_the_section_with_its_overrides():
    params = plain_params(diffcomp={"eta": 0.3}, diffcomp_variants={"a": {"text": "caption"}, "b": {}})
    variants = params.variants()
    assert (variants["a"].text, variants["a"].eta) == ("caption", 0.3)
    assert variants["b"] == params.diffcomp


def test_the_paper_profile_has_the_papers_numbers():
    params = profile("paper")
    prior, control = params.prior, params.control
    assert (prior.batch_size, prior.lr, prior.weight_decay, prior.eps, prior.clip_norm) == (
        4096,
        2e-5,
        3e-2,
        1e-10,
        0.01,
    )
    assert (prior.warmup_steps, prior.steps, prior.schedule) == (1000, 32800, "cosine")
    assert (control.batch_size, control.lr, control.weight_decay, control.eps, control.clip_norm) == (
        1024,
        2e-5,
        2e-2,
        1e-10,
        0.01,
    )
    assert (control.warmup_steps, control.steps, control.schedule) == (0, 400, "constant")
    assert (params.retrieve.guidance_scale, params.retrieve.control_scale, params.retrieve.solver_steps) == (
        2.5,
        1.0,
        14,
    )
    assert (params.diffcomp.super_patch, params.diffcomp.eta, params.diffcomp.lambda_base, params.diffcomp.phi) == (
        4,
        0.7,
        0.8,
        0.4,
    )


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("threads", 0, "runtime.threads: 0 is not at least 1"),
        ("threads", -1, "runtime.threads: -1 is not at least 1"),
        ("device", "gpu", "runtime.device: 'gpu' is not one of auto, cpu, cuda, cuda:N"),
        ("device", "cuda:x", "runtime.device: 'cuda:x' is not one of"),
    ],
)
def test_a_machine_that_there_is_not(name, value, reason):
    values = plain_values()
    values["runtime"] = values["runtime"] | {name: value}
    with pytest.raises(ParameterError, match=reason):
        params_from_dict(values)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_machines_that_may_be_named(device):
    assert plain_params(runtime={"device": device}).runtime.device == device


def test_a_folder_without_profiles_is_named(tmp_path):
    with pytest.raises(ParameterError, match="profile: there are no profiles; run this in the project's folder"):
        load_profile("offline", tmp_path)

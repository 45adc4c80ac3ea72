"""Parameters for tests: the offline profile, with plain values where its own suit only its own models.

`section(IndexParams, kind="hnsw")` is one section with what a test changes of it.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pipeline.config import (
    OptimiserParams,
    Params,
    Section,
    as_dict,
    load_profile,
    params_from_dict,
)

ROOT = Path(__file__).parents[1]
OPTIMISER = {
    "lr": 1e-4,
    "weight_decay": 0.0,
    "eps": 1e-8,
    "beta2": 0.999,
    "clip_norm": 1.0,
    "warmup_steps": 0,
    "schedule": "cosine",
    "steps": 1000,
    "batch_size": 256,
    "micro_batch_size": 0,
    "precision": "fp32",
    "ema_decay": 0.0,
    "log_every": 10,
    "checkpoint_every": 500,
}
PLAIN = {
    "backbones": {"mllm": OPTIMISER | {"drop_path": 0.0}, "clip": OPTIMISER, "reranker": OPTIMISER},
    "prior": OPTIMISER | {"diffusion": {"prediction": "epsilon"}},
    "control": OPTIMISER,
    "diffcomp": OPTIMISER
    | {
        "super_patch": 2,
        "local_blocks": 1,
        "text": "caption",
        "carriers": 0.0,
        "fill": "nothing",
        "augment": False,
        "eta": 0.7,
        "lambda_base": 0.8,
        "lambda_query": 0.0,
        "phi": 0.4,
        "backbone_share": 0.0,
    },
    "retrieve": {"guidance_scale": 2.5, "temperature": 1.0},
}
S = TypeVar("S", bound=Section)


def plain_values(**changes: Any) -> dict[str, Any]:
    """Every parameter, with what a test changes of them; given variants of DiffComp replace the profile's."""
    values = _laid_over(as_dict(profile("offline")), PLAIN)
    values["diffcomp_variants"] = {}
    return _laid_over(values, changes)


def plain_params(**changes: Any) -> Params:
    """`plain_values` as parameters. Raises ParameterError for a wrong change, which names it."""
    return params_from_dict(plain_values(**changes))


def section(kind: type[S], /, **changes: Any) -> S:
    """One section of `plain_params`, by its class; an optimiser's numbers alone for OptimiserParams."""
    if kind is OptimiserParams:
        return kind(**{**OPTIMISER, **changes})
    params = _plain()
    everywhere = [params, *vars(params).values(), params.prior.diffusion, params.backbones.mllm, params.backbones.clip]
    everywhere += [*vars(params.peers).values(), params.peers.searle.inversion]
    everywhere += [params.data.web, params.diffcomp.data, params.prior.data]
    return replace(next(found for found in everywhere if type(found) is kind), **changes)


@cache
def profile(name: str) -> Params:
    """The parameters of a profile, which no test may change."""
    return load_profile(name, ROOT / "conf")


def composed(*overrides: str) -> Params:
    """The parameters that `dvc exp run -S` makes of some overrides, such as profile=paper."""
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        values = OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True)
    return params_from_dict(values)


@cache
def _plain() -> Params:
    return plain_params()


def _laid_over(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for name, value in changes.items():
        mine = values.get(name)
        values[name] = _laid_over(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return values

"""The card of a published model: what it is, what it was made of, how good it is, how it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from safetensors import safe_open

from pipeline.app.release.models import Published
from pipeline.artifacts import read_json
from pipeline.artifacts.model_files import CONFIG, WEIGHTS
from pipeline.config import Params, as_dict
from pipeline.query.registry import labelled_methods

METRICS = Path("reports/metrics.json")
SHIPPED = "models/backbones"
_RECALLS = ("R@1", "R@10", "R@50")
_TRAINING = ("steps", "batch_size", "lr", "weight_decay", "warmup_steps", "ema_decay")


def card_of(model: Published, params: Params, licence: str) -> str:
    """A model's card in Markdown, with the fields that hubs read in front.

    Args:
        model: Its weights are there.
        params: What it was trained by.
        licence: Of the weights, as hubs name it.
    """
    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).get_template("card.md")
    config = read_json(model.folder / CONFIG)
    data = ModelCardData(
        license=licence,
        library_name="composed-image-retrieval",
        tags=["composed-image-retrieval", "zero-shot", model.kind],
        pipeline_tag=None,
    )
    return template.render(
        head=data.to_yaml(),
        licence=licence,
        model=model,
        count=f"{_count(model.folder / WEIGHTS):,}",
        config=config,
        training=_training(model, params, config),
        sources=_sources(params),
        is_emoji=params.data.sources == "emoji",
        scores=_scores(model),
        recalls=_RECALLS,
        made_for=_made_for(config),
    )


def _count(weights: Path) -> int:
    """The number of parameters, from the file's header alone."""
    count = 0
    with safe_open(weights, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            size = 1
            for side in file.get_slice(name).get_shape():
                size *= side
            count += size
    return count


def _training(model: Published, params: Params, config: dict[str, Any]) -> dict[str, Any]:
    section = config.get("diffcomp") or as_dict(getattr(params, model.kind))
    return {name: section[name] for name in _TRAINING if section.get(name) is not None}


def _sources(params: Params) -> list[str]:
    return [] if params.data.sources == "emoji" else list(params.data.web.pairs)


def _made_for(config: dict[str, Any]) -> dict[str, str]:
    """The frozen models whose embeddings or texts it learned."""
    found = {}
    for part in ("embedder", "text_encoder"):
        section = config.get(part)
        if isinstance(section, dict):
            revision = f", revision `{section['revision']}`" if section.get("revision") else ""
            found[part.replace("_", " ")] = f"`{section.get('path', '')}`{revision}"
    return found


def _scores(model: Published) -> list[dict[str, Any]]:
    """The rows of the last report that this model made, alone or with others."""
    if not METRICS.is_file():
        return []
    metrics, rows = read_json(METRICS), []
    for method in labelled_methods().values():
        if model.folder not in method.weights:
            continue
        for benchmark, methods in metrics.items():
            mean = methods.get(method.name, {}).get("mean") if isinstance(methods, dict) else None
            if isinstance(mean, dict) and all(name in mean for name in _RECALLS) and not benchmark.endswith("_val"):
                rows.append({"method": method.label, "benchmark": benchmark, **mean})
    return rows

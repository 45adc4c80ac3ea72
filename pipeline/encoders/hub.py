"""Where a model's files lie, and one clear line when they are missing."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from pipeline.artifacts import ArtifactError

BYTES = {
    "Qwen/Qwen2.5-VL-3B-Instruct": 7.5e9,
    "Qwen/Qwen2.5-VL-7B-Instruct": 16.6e9,
    "Qwen/Qwen2.5-VL-72B-Instruct": 146.8e9,
    "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct": 4.4e9,
    "Qwen/Qwen3-VL-Embedding-2B": 4.3e9,
    "Qwen/Qwen3-VL-Reranker-2B": 4.3e9,
    "google-t5/t5-large": 2.95e9,
    "city96/t5-v1_1-xxl-encoder-bf16": 9.5e9,
    "google/t5-v1_1-xxl": 44.5e9,
    "Salesforce/blip-itm-large-coco": 1.78e9,
    "ViT-B-32/openai": 0.6e9,
    "ViT-L-14-quickgelu/openai": 1.7e9,
    "ViT-bigG-14/laion2b_s39b_b160k": 10.2e9,
}
"""Approximate download sizes of the models that the profiles and the papers name: as the hub lists their files, or
their parameters times the bytes of one."""


def resolve_model_path(path: str) -> str:
    """Where the weights that a parameter names lie.

    Args:
        path: A folder, the name of an installed package that carries weights, or a hub name.

    Returns:
        The folder, for a package the one inside it that holds a config and safetensors; a hub name as it is.
    """
    if Path(path).is_dir() or not path.isidentifier():
        return path
    package = importlib.util.find_spec(path)
    for root in package.submodule_search_locations or () if package else ():
        for config in sorted(Path(root).rglob("config.json")):
            if any(config.parent.glob("*.safetensors")):
                return str(config.parent)
    return path


def not_loaded(parameter: str, path: str, revision: str, error: Exception) -> ArtifactError:
    """The error for a transformers model that could not be loaded.

    Args:
        parameter: The parameter that names the model, such as `embedder.path`.
        path: Its value: a folder or a hub name.
        revision: The pinned revision of a hub name; "" for none.
        error: What the library raised.

    Returns:
        For a local model what is wrong with it; for a hub's its revision, where it must lie, and its size.
    """
    if (
        Path(path).exists()
        or "/" not in path.strip("/")
        or path.count("/") > 1
        or path.startswith((".", "models/", "data/"))
    ):
        return ArtifactError(f"{parameter} {path!r}: cannot be loaded ({str(error).splitlines()[0]})")
    size = f", about {BYTES[path] / 1e9:,.1f} GB" if path in BYTES else ""
    pinned = f" --revision {revision}" if revision else ""
    place = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub" / f"models--{path.replace('/', '--')}"
    return ArtifactError(
        f"{parameter} {path!r}: revision {revision or 'main'} is not on this machine; "
        f"`hf download {path}{pinned}` puts it into {place}{size} ({str(error).splitlines()[0]})"
    )


def clip_not_loaded(backbone: str, pretrained: str, error: Exception) -> ArtifactError:
    """As `not_loaded`, for a model name and a pretrained tag of open_clip."""
    size = BYTES.get(f"{backbone}/{pretrained}")
    about = f", about {size / 1e9:,.1f} GB" if size else ""
    load = f"cir models fetch {backbone}/{pretrained}"
    place = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub"
    why = (str(error) or type(error).__name__).splitlines()[0]
    missing = f"diffcomp.backbone {backbone!r}: the weights {pretrained!r} are not on this machine"
    return ArtifactError(f"{missing}; `{load}` puts them into {place}{about} ({why})")

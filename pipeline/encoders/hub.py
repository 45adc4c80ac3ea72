"""What a model of a hub needs to be here, said in one line when it is not."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.artifacts import ArtifactError

BYTES = {
    "Qwen/Qwen2.5-VL-3B-Instruct": 7.5e9,
    "Qwen/Qwen2.5-VL-7B-Instruct": 16.6e9,
    "Qwen/Qwen2.5-VL-72B-Instruct": 146.8e9,
    "google/t5-v1_1-xxl": 44.5e9,
    "ViT-B-32/openai": 0.6e9,
    "ViT-L-14/openai": 1.7e9,
    "ViT-bigG-14/laion2b_s39b_b160k": 10.2e9,
}
"""About so many, of those that the profiles and the paper name."""


def not_loaded(parameter: str, path: str, revision: str, error: Exception) -> ArtifactError:
    """A local model is named with what is wrong with it; a hub's with its revision, where it must lie, and its size."""
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
        f"{parameter} {path!r}: revision {revision or 'main'} is not on this machine; `hf download {path}{pinned}` puts it into "
        f"{place}{size} ({str(error).splitlines()[0]})"
    )


def clip_not_loaded(backbone: str, pretrained: str, error: Exception) -> ArtifactError:
    """As `not_loaded`, for open_clip's tags."""
    size = BYTES.get(f"{backbone}/{pretrained}")
    about = f", about {size / 1e9:,.1f} GB" if size else ""
    load = f"HF_HUB_OFFLINE=0 python -c \"import open_clip; open_clip.create_model('{backbone}', '{pretrained}')\""
    place = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub"
    why = (str(error) or type(error).__name__).splitlines()[0]
    missing = f"diffcomp.backbone {backbone!r}: the weights {pretrained!r} are not on this machine"
    return ArtifactError(f"{missing}; `{load}` puts them into {place}{about} ({why})")

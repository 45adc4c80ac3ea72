"""Every checkpoint and data set that a profile needs: where it must lie, and whether it lies there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.app.inventory import catalogue
from pipeline.config import Params
from pipeline.encoders.hub import BYTES, resolve_model_path
from pipeline.sources.benchmarks.registry import READERS
from pipeline.sources.files import files_below
from pipeline.sources.web.archives import ARCHIVES
from pipeline.sources.web.web_pairs import EXPECTED

SECTIONS = ("embedder", "describer", "captioner")
"""Sections of a multimodal LLM that every run needs."""
WEIGHTS = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.jinja"]
"""The files of a hub's checkpoint that are read."""
OPEN_CLIP_WEIGHTS = ["open_clip*.safetensors", "open_clip_config.json", "*.json", "*.txt"]
"""Those of open_clip: its hubs hold the same weights for transformers, too."""

SANA_PARTS = ("transformer", "vae")
"""The folders of a SANA that the decoder reads."""


@dataclass(frozen=True)
class Need:
    """A checkpoint or a data set."""

    kind: str
    """checkpoint or data."""
    name: str
    used_by: str
    """The parameter that names it."""
    place: Path
    """Where it must lie."""
    there: bool
    size: float = 0.0
    """Its bytes on disk if there, else of the download as far as known; 0: not known."""
    revision: str = ""
    licence: str = ""
    hub: str = ""
    """The hub's repository that holds it; "" where it comes from elsewhere."""
    source: str = ""
    """What to put there, for what no hub holds."""
    files: tuple[str, ...] = ()
    """Patterns of the files of the hub's repository that are read; (): those of a checkpoint."""
    optional: bool = False
    """Whether a run goes through without it: only a frozen stage reads it."""


def needs(params: Params) -> list[Need]:
    """All of a profile's, checkpoints first, each once.

    Args:
        params: The profile's parameters.

    Returns:
        In the order in which stages ask for them.
    """
    found: dict[tuple[str, str], Need] = {}
    for need in (*_checkpoints(params), *_data(params)):
        key = (need.name, need.revision)
        before = found.get(key)
        found[key] = replace(before, used_by=f"{before.used_by}, {need.used_by}") if before else need
    return list(found.values())


def mllm_sections(params: Params) -> dict[str, Any]:
    """The sections of the multimodal LLMs that a run needs, by name."""
    names = (*SECTIONS, *["reranker"] * bool(params.rerank.methods))
    return {name: getattr(params, name) for name in names}


def hub_cache() -> Path:
    """The folder of the hub's downloads."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub"))


def _checkpoints(params: Params) -> Iterator[Need]:
    for name, section in mllm_sections(params).items():
        yield _transformers(f"{name}.path", section.path, section.revision)
    if params.text_encoder.kind != "mllm":
        yield _transformers("text_encoder.path", params.text_encoder.path, params.text_encoder.revision)
    if params.decoder.checkpoint:
        yield _sana(params.decoder.checkpoint, params.decoder.revision)
    yield _dual_encoder(params.diffcomp.backbone, params.diffcomp.pretrained)


def _transformers(parameter: str, path: str, revision: str) -> Need:
    """A folder, an installed package, or a hub's repository."""
    local = Path(resolve_model_path(path))
    if local.is_dir() or path.count("/") != 1 or path.startswith((".", "models/", "data/")):
        licence = catalogue.SHIPPED.get(path, "")
        return Need("checkpoint", path, parameter, local, is_whole(local), _bytes(local), licence=licence)
    place = hub_cache() / f"models--{path.replace('/', '--')}"
    snapshot = place / "snapshots" / (revision or _main(place))
    there = is_whole(snapshot)
    size = _bytes(snapshot) if there else BYTES.get(path, 0.0)
    licence = catalogue.CHECKPOINTS.get(path, "")
    return Need("checkpoint", path, parameter, snapshot if revision else place, there, size, revision, licence, path)


def _sana(path: str, revision: str) -> Need:
    """The transformer and the autoencoder of a pipeline of diffusers; its text encoder is not read."""
    need = _transformers("decoder.checkpoint", path, revision)
    folder = need.place if revision or not need.hub else need.place / "snapshots" / _main(need.place)
    there = all(is_whole(folder / part) for part in SANA_PARTS)
    size = sum(_bytes(folder / part) for part in SANA_PARTS) if there else BYTES.get(path, 0.0)
    return replace(need, there=there, size=size, files=tuple(f"{part}/*" for part in SANA_PARTS), optional=True)


def _dual_encoder(backbone: str, pretrained: str) -> Need:
    """A folder, a transformers model, or one of open_clip's with a tag or a file of weights."""
    if not pretrained or "/" in backbone:
        return _transformers("diffcomp.backbone", backbone, pretrained)
    if Path(pretrained).is_file() or "/" in pretrained or pretrained.endswith(".safetensors"):
        path = Path(pretrained)
        return Need("checkpoint", f"{backbone} {pretrained}", "diffcomp.pretrained", path, path.is_file(), _bytes(path))
    import open_clip

    hub = (open_clip.get_pretrained_cfg(backbone, pretrained) or {}).get("hf_hub", "").strip("/")
    place = hub_cache() / f"models--{hub.replace('/', '--')}"
    there = any(place.glob("snapshots/*/open_clip*.safetensors")) or any(place.glob("snapshots/*/open_clip*.bin"))
    name = f"{backbone}/{pretrained}"
    size = _bytes(place / "snapshots") if there else BYTES.get(name, BYTES.get(name.replace("-quickgelu", ""), 0.0))
    licence = catalogue.CHECKPOINTS.get(pretrained, "")
    return Need("checkpoint", name, "diffcomp.backbone", place, there, size, licence=licence, hub=hub)


def is_whole(folder: Path) -> bool:
    """Whether a folder has a configuration and every file of weights that its index names."""
    if not (folder / "config.json").is_file() and not (folder / "open_clip_config.json").is_file():
        return False
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = set(json.loads(index.read_text())["weight_map"].values())
        return all((folder / name).is_file() for name in files)
    return any(folder.glob("*.safetensors"))


def _main(place: Path) -> str:
    """The commit that a cached `main` stands for."""
    reference = place / "refs" / "main"
    return reference.read_text().strip() if reference.is_file() else "main"


def _data(params: Params) -> Iterator[Need]:
    raw, web = Path(params.data.raw), params.data.web
    for name in (*web.pairs, *web.edits) if params.data.sources == "web" else ():
        folder, (what, size) = raw / name, EXPECTED[name]
        endings = (".parquet",) if name == "hqedit" else (".csv",) if name == "folder" else ARCHIVES
        there = folder.is_dir() and bool(files_below(folder, endings))
        licence = catalogue.DATA.get(name, "")
        yield Need("data", name, "data.web", folder, there, size, licence=licence, source=what)
    for benchmark in params.data.benchmarks:
        if reader := READERS.get(benchmark):
            folder = Path(getattr(params.data, benchmark).folder)
            source = f"{reader.annotations_source}; {reader.images_source}"
            there, licence = folder.is_dir() and any(folder.iterdir()), catalogue.DATA.get(benchmark, "")
            yield Need("data", benchmark, f"data.{benchmark}", folder, there, licence=licence, source=source)


def _bytes(path: Path) -> float:
    files = [path] if path.is_file() else path.rglob("*") if path.is_dir() else []
    return float(sum(file.stat().st_size for file in files if file.is_file()))

"""What makes embeddings comparable: the part of a shard set's identity that names the encoder."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from pipeline.artifacts import sha256_file
from pipeline.config import EmbedderParams, GeneratorParams, MllmParams, RerankerParams, TextEncoderParams
from pipeline.encoders.hub import resolve_model_path

WEIGHT_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja")


EMBEDS = ("dim", "embed_template", "query_instruction", "document_instruction")
WRITES = ("chat_template", "max_new_tokens", "batch_size")
VERIFIES = ("template", "answers", "batch_size")
OWN: dict[type[MllmParams], tuple[str, ...]] = {
    EmbedderParams: EMBEDS,
    GeneratorParams: WRITES,
    RerankerParams: VERIFIES,
}
"""What of a section its outputs depend on, beside the model."""


def mllm_identity(params: MllmParams, **more: Any) -> dict[str, Any]:
    """The identity of f_M's outputs: model, revision, templates, dimension. The backend is not part of it.

    Args:
        params: One of f_M's sections.
        **more: What else the outputs depend on, such as the inputs' hashes.

    Returns:
        `{"embedder": {...}, **more}`, under the name of the section.
    """
    own = next((names for kind, names in OWN.items() if isinstance(params, kind)), ())
    names = ("path", "revision", "dtype", *own, *(["max_side"] if params.max_side else []))
    named = {name: getattr(params, name) for name in names}
    return {params.section: {**named, "weights": fingerprint(params.path)}, **more}


def text_encoder_identity(params: TextEncoderParams, embedder: EmbedderParams) -> dict[str, Any]:
    """The identity of E_text's token states: `{"text_encoder": {...}}`.

    Args:
        params: The section `text_encoder`.
        embedder: The section `embedder`: f_M, whose text branch it may be.
    """
    if params.kind == "mllm":
        own = {"kind": params.kind, "dim": params.dim, "max_tokens": params.max_tokens}
        return {"text_encoder": mllm_identity(embedder)["embedder"] | own}
    named = {name: getattr(params, name) for name in ("path", "revision", "dim", "max_tokens", "dtype")}
    return {"text_encoder": {**named, "weights": fingerprint(resolve_model_path(params.path))}}


def backbone_identity(backbone: str, pretrained: str = "", image_size: int = 0) -> dict[str, Any]:
    """What vectors of the untouched backbone are known by.

    Args:
        backbone: A local folder or a name, as `diffcomp.backbone`.
        pretrained: open_clip's tag of the weights.
        image_size: Side of the images that it sees; 0: its own.
    """
    known = {"name": backbone, "pretrained": pretrained, "weights": fingerprint(backbone)}
    return {"backbone": known | ({"image_size": image_size} if image_size else {})}


def fingerprint(folder: str | Path) -> str:
    """SHA-256 over a local model folder's weights, configuration and tokenizer files; "" for a hub name.

    A path alone does not say what made an embedding: the model there may have been trained anew. A
    hub name is pinned by its revision. Hashing a large model takes a while, so files that have not
    changed since are not read again by the same process.
    """
    files = sorted(path for path in Path(folder).absolute().glob("*") if path.suffix in WEIGHT_SUFFIXES)
    return _fingerprint(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)) if files else ""


@functools.lru_cache(maxsize=16)
def _fingerprint(files: tuple[tuple[Path, int, int], ...]) -> str:
    """The hash of files that are known by path, size and time of change."""
    digest = hashlib.sha256()
    for path, _, _ in files:
        digest.update(f"{path.name} {sha256_file(path)}\n".encode())
    return digest.hexdigest()

"""What makes embeddings comparable: the part of a shard set's identity that names the encoder."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from pipeline.artifacts import sha256_file
from pipeline.config import EncoderParams, TextEncoderParams
from pipeline.encoders.hub import resolve_model_path

WEIGHT_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja")


def mllm_identity(params: EncoderParams, **more: Any) -> dict[str, Any]:
    """The identity of f_M's outputs: model, revision, template, dimension. The backend is not part of it.

    Args:
        params: The section `encoder`.
        **more: What else the outputs depend on, such as the inputs' hashes.

    Returns:
        `{"encoder": {...}, **more}`.
    """
    names = ("path", "revision", "dtype", "dim", "embed_template", *(["max_side"] if params.max_side else []))
    named = {name: getattr(params, name) for name in names}
    return {"encoder": {**named, "weights": fingerprint(params.path)}, **more}


def text_encoder_identity(params: TextEncoderParams, encoder: EncoderParams) -> dict[str, Any]:
    """The identity of E_text's token states: `{"text_encoder": {...}}`.

    Args:
        params: The section `text_encoder`.
        encoder: The section `encoder`: f_M, whose text branch it may be.
    """
    if params.kind == "mllm":
        own = {"kind": params.kind, "dim": params.dim, "max_tokens": params.max_tokens}
        return {"text_encoder": mllm_identity(encoder)["encoder"] | own}
    named = {name: getattr(params, name) for name in ("path", "revision", "dim", "max_tokens")}
    return {"text_encoder": {**named, "weights": fingerprint(resolve_model_path(params.path))}}


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

"""f_M behind one interface: fused embeddings and generated text from images and texts."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from pipeline.artifacts import sha256_file
from pipeline.config import EncoderParams


@dataclass(frozen=True)
class MllmInput:
    """What f_M sees: an image, a text, or both."""

    text: str = ""
    image: Image.Image | None = None


class Mllm(Protocol):
    """A multimodal LLM. Both calls keep the order of their inputs.

    A backend may also have `prepare(one, task)`, which does ahead of `embed` or `generate` (the task) what can be
    done for one input alone. Threads call it; it raises ValueError for an input that the model does not take.
    """

    dim: int

    def embed(self, inputs: Sequence[MllmInput]) -> np.ndarray:
        """z(x): the last token's final hidden state, L2-normalised. -> float32 [N, dim]"""

    def generate(self, inputs: Sequence[MllmInput], max_new_tokens: int, sequences: int = 1) -> list[list[str]]:
        """The `sequences` likeliest continuations (beam search; greedy for one) of every input, best first."""


def open_mllm(params: EncoderParams, device: str = "auto") -> Mllm:
    """The backend that `encoder.backend` names; with `encoder.engine: ray`, opened where it is first asked."""
    if params.engine == "ray":
        from pipeline.encoders.embedding.ray_engine import ReplicatedMllm

        return ReplicatedMllm(params, device)
    if params.backend == "vllm":
        from pipeline.encoders.mllm.vllm_backend import VllmMllm

        return VllmMllm(params)
    from pipeline.encoders.mllm.transformers_backend import TransformersMllm

    return TransformersMllm(params, device)


def preparing(mllm: Mllm, task: str) -> Callable[[MllmInput], MllmInput]:
    """`mllm.prepare` for one task, where the backend has it."""
    prepare = getattr(mllm, "prepare", None)
    return functools.partial(prepare, task=task) if prepare else _unchanged


def _unchanged(one: MllmInput) -> MllmInput:
    return one


def identity(params: EncoderParams, **more: Any) -> dict[str, Any]:
    """What makes embeddings comparable: model, revision, templates, dimension. The backend is not in it."""
    names = ("path", "revision", "dtype", "dim", "embed_template", *(["max_side"] if params.max_side else []))
    named = {name: getattr(params, name) for name in names}
    return {"encoder": {**named, "weights": fingerprint(params.path)}, **more}


def fingerprint(folder: str | Path) -> str:
    """SHA-256 over a local model folder's weights, configuration and tokenizer files; "" for a hub name.

    A path alone does not say what made an embedding: the model there may have been trained anew. A
    hub name is pinned by its revision. Hashing a large model takes a while: files that have not changed
    since are not read again by the same process.
    """
    suffixes = (".json", ".safetensors", ".txt", ".model", ".jinja")
    files = sorted(path for path in Path(folder).absolute().glob("*") if path.suffix in suffixes)
    return _fingerprint(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)) if files else ""


@functools.lru_cache(maxsize=16)
def _fingerprint(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, _, _ in files:
        digest.update(f"{path.name} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def caption_input(params: EncoderParams, image: Image.Image) -> MllmInput:
    return MllmInput(params.caption_prompt, image)


def target_input(params: EncoderParams, reference: Image.Image, modification: str, shared_concept: str) -> MllmInput:
    """Section 6.3's unified instruction: describe the reference after the edit."""
    return MllmInput(params.target_prompt.format(modification=modification, shared_concept=shared_concept), reference)


def leading(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Keep the leading `dim` dimensions (0: all) and renormalise. vectors [N, D] -> [N, dim or D]"""
    if not dim:
        return vectors
    if dim > vectors.shape[1]:
        raise ValueError(f"encoder.dim {dim} exceeds the encoder's {vectors.shape[1]} dimensions")
    kept = vectors[:, :dim]
    return kept / np.linalg.norm(kept, axis=1, keepdims=True)


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

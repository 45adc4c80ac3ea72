"""The query side of every method: a reference picture and a modification -> vectors in a gallery's space.

The only module that knows both Fusion-Diff and DiffComp. The retrieve stage, the command line and
the demo ask it for vectors; `pipeline.retrieval` searches them without knowing where they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.artifacts import ArtifactError
from pipeline.config import Params
from pipeline.diffcomp import DiffComp, load_diffcomp
from pipeline.diffcomp.files import backbone_identity, variant_identity
from pipeline.encoders.dual import DualEncoder, load_dual_encoder
from pipeline.encoders.gallery import encode_in_batches, encode_pictures
from pipeline.encoders.mllm import Mllm, MllmInput, batches, identity, open_mllm, target_input
from pipeline.encoders.pictures import Pictures
from pipeline.encoders.text import TextEncoder
from pipeline.encoders.text import identity as text_identity
from pipeline.fusion_diff import Sampler, TextConditions
from pipeline.fusion_diff.files import load_control, load_prior
from pipeline.retrieval import BASELINES, Index, Query
from pipeline.runtime import device

FUSED, CLIP = "fused", "clip"
"""The galleries' spaces, beside one for every DiffComp variant under its name."""

PRIOR, CONTROL, DIFFCOMP = Path("models/prior"), Path("models/control"), Path("models/diffcomp")


@dataclass(frozen=True)
class QueryVectors:
    """What to search, and where."""

    space: str
    vectors: np.ndarray
    """[Q, d], or [Q, K, d] for K hypotheses a query; unit length."""


class Family(Protocol):
    """Methods that share their models."""

    spaces: dict[str, dict[str, Any]]
    """Space -> what the identity of a gallery in it must say."""

    def vectors(self, queries: Sequence[Query], pictures: Pictures) -> dict[str, QueryVectors]:
        """Method -> its query vectors."""


def open_space(folder: str | Path, family: Family, space: str, threads: int = 1) -> Index:
    """Load the index of one space. Raises ArtifactError when its gallery was embedded by another model."""
    index = Index.open(Path(folder) / space, threads=threads)
    found = index.manifest["gallery_identity"]
    for key, expected in family.spaces[space].items():
        if found.get(key) != expected:
            raise ArtifactError(f"{Path(folder) / space}: its gallery has {key} = {found.get(key)!r}, the queries {expected!r}")
    return index


class FusionDiffQueries:
    """fused_only (A): z_r,delta itself; stage1_only (B): the prior; fusion_diff (C): the prior under control."""

    def __init__(self, params: Params, mllm: Mllm, text_encoder: TextEncoder, stage1: Sampler, full: Sampler):
        self.params, self.mllm, self.text_encoder, self.stage1, self.full = params, mllm, text_encoder, stage1, full
        self.spaces = {FUSED: identity(params.encoder)}
        self.descriptions: dict[str, list[str]] = {}
        """Query id -> the target descriptions inferred for it so far."""

    @classmethod
    def load(cls, params: Params, prior_folder: Path = PRIOR, control_folder: Path = CONTROL) -> FusionDiffQueries:
        """Raises ArtifactError when the prior learned another encoder's embeddings, or the adapter another prior."""
        where, sizes = device(params.runtime), params.retrieve
        prior, diffusion = load_prior(prior_folder, **identity(params.encoder), **text_identity(params.text_encoder))
        adapter = load_control(control_folder, prior, prior_folder).to(where)
        prior.to(where)
        stage1, full = (
            Sampler(prior, control, diffusion, sizes.solver_steps, sizes.guidance_scale, sizes.control_scale)
            for control in (None, adapter)
        )
        mllm, text_encoder = open_mllm(params.encoder, params.runtime.device), TextEncoder(params.text_encoder, params.runtime.device)
        return cls(params, mllm, text_encoder, stage1, full)

    def vectors(self, queries: Sequence[Query], pictures: Pictures) -> dict[str, QueryVectors]:
        fused = self.fuse(queries, pictures)
        described = self.describe(queries, pictures)
        stage1, full = self.sample(self.stage1, queries, described), self.sample(self.full, queries, described, fused)
        return {
            "fused_only": QueryVectors(FUSED, fused), "stage1_only": QueryVectors(FUSED, stage1), "fusion_diff": QueryVectors(FUSED, full),
        }

    def fuse(self, queries: Sequence[Query], pictures: Pictures) -> np.ndarray:
        """z_r,delta [Q, d]: f_M of the reference and the modification."""
        inputs = [MllmInput(query.text, pictures.image(query.reference_id)) for query in queries]
        return np.concatenate([self.mllm.embed(batch) for batch in self._batches(inputs, "z_r,delta")])

    def describe(self, queries: Sequence[Query], pictures: Pictures) -> list[list[str]]:
        """The D likeliest target descriptions of every query, best first; the modification where f_M says nothing."""
        encoder, count = self.params.encoder, self.params.retrieve.descriptions
        inputs = [target_input(encoder, pictures.image(query.reference_id), query.text, query.shared_concept) for query in queries]
        answers = [
            answer for batch in self._batches(inputs, "target descriptions")
            for answer in self.mllm.generate(batch, encoder.max_new_tokens, count)
        ]
        described = [[text or query.text for text in texts] for query, texts in zip(queries, answers, strict=True)]
        self.descriptions |= {query.query_id: texts for query, texts in zip(queries, described, strict=True)}
        return described

    def sample(self, sampler: Sampler, queries: Sequence[Query], described: list[list[str]], fused: np.ndarray | None = None) -> np.ndarray:
        """K sampled targets a query, [Q, K, d]: K / D of them for each of its D descriptions."""
        retrieve, ids = self.params.retrieve, [query.query_id for query in queries]
        control = None if fused is None else torch.from_numpy(fused)  # [Q, d]
        parts = []
        for number, texts in enumerate(zip(*described, strict=True)):
            text = TextConditions.from_list(self.text_encoder.encode(list(texts)), ids)
            drawn = [
                sampler.sample(
                    [ids[row] for row in rows], *text.batch(rows), None if control is None else control[rows],
                    hypotheses=retrieve.hypotheses // retrieve.descriptions, seed=self.params.seed + number,
                ).cpu()
                for rows in tqdm(torch.arange(len(ids)).split(retrieve.batch_size), desc="sampling", mininterval=5.0)
            ]
            parts.append(torch.cat(drawn))  # [Q, K / D, d]
        return torch.cat(parts, dim=1).numpy()

    def _batches(self, inputs: list[MllmInput], title: str) -> tqdm:
        return tqdm(list(batches(inputs, self.params.encoder.batch_size)), desc=title, mininterval=5.0)


class DualEncoderQueries:
    """The training-free rows over the untouched backbone, and every trained DiffComp."""

    def __init__(self, params: Params, backbone: DualEncoder, variants: dict[str, DiffComp], spaces: dict[str, dict[str, Any]]):
        self.params, self.backbone, self.variants, self.spaces = params, backbone, variants, spaces

    @classmethod
    def load(cls, params: Params, folder: Path = DIFFCOMP) -> DualEncoderQueries:
        """Raises ArtifactError when a variant is missing or does not fit its backbone."""
        where, base = device(params.runtime), params.diffcomp
        variants = {
            name: load_diffcomp(folder / name, load_dual_encoder(variant.backbone, variant.pretrained)).to(where)
            for name, variant in params.variants().items()
        }
        spaces = {CLIP: backbone_identity(base.backbone, base.pretrained)} | {name: variant_identity(folder / name) for name in variants}
        return cls(params, load_dual_encoder(base.backbone, base.pretrained).eval().to(where), variants, spaces)

    def vectors(self, queries: Sequence[Query], pictures: Pictures) -> dict[str, QueryVectors]:
        image = self._encode(lambda batch: self._images(self.backbone, batch, pictures), queries, CLIP)
        text = self._encode(lambda batch: self.backbone.encode_text(self._tokens(self.backbone, batch)), queries, CLIP)
        weights = {"slerp": self.params.retrieve.slerp, "image_text": self.params.retrieve.image_text}
        rows = {
            name: QueryVectors(CLIP, compose(image, text, weights[name]) if name in weights else compose(image, text))
            for name, compose in BASELINES.items()
        }
        for name, model in self.variants.items():
            rows[name] = QueryVectors(name, self._encode(lambda batch, model=model: self._compose(model, batch, pictures), queries, name))
        return rows

    def _encode(self, encode: Any, queries: Sequence[Query], title: str) -> np.ndarray:
        return encode_in_batches(encode, queries, self.params.retrieve.batch_size, title)

    def _images(self, encoder: DualEncoder, batch: Sequence[Query], pictures: Pictures) -> Tensor:
        return encode_pictures(encoder, pictures, [query.reference_id for query in batch])

    def _tokens(self, encoder: DualEncoder, batch: Sequence[Query]) -> Tensor:
        return encoder.tokenize([query.text for query in batch]).to(encoder.mean.device)

    def _compose(self, model: DiffComp, batch: Sequence[Query], pictures: Pictures) -> Tensor:
        encoder = model.encoder
        pixels = pictures.pixels([query.reference_id for query in batch], encoder.image_size)
        return model.compose(encoder.normalise(pixels), self._tokens(encoder, batch))

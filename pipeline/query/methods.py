"""The query side of every method: a reference image and a modification -> vectors in a gallery's space.

The only module that knows both Fusion-Diff and DiffComp. The retrieve stage, the command line and
the demo ask it for vectors; `pipeline.retrieval` searches them without knowing where they come from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from pipeline.artifacts import ArtifactError
from pipeline.config import Params
from pipeline.diffcomp import DiffComp, load_diffcomp, subtract
from pipeline.diffcomp.checkpoints import backbone_identity, variant_identity
from pipeline.encoders.batching import batches, encode_in_batches
from pipeline.encoders.dual.interface import DualEncoder
from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.encoders.embedding.dual_gallery import encode_images
from pipeline.encoders.identity import mllm_identity, text_encoder_identity
from pipeline.encoders.image_source import ImageSource, centre_square
from pipeline.encoders.mllm.interface import Mllm, MllmInput
from pipeline.encoders.mllm.open import open_mllm
from pipeline.encoders.mllm.prompts import target_input
from pipeline.encoders.text import TextEncoder
from pipeline.fusion_diff import Sampler, SamplerSettings, TextConditions
from pipeline.fusion_diff.checkpoints import load_control, load_prior
from pipeline.gpu.batcher import SamplingBatcher
from pipeline.retrieval import BASELINES, Index, Query
from pipeline.runtime import device

FUSED, CLIP = "fused", "clip"
"""The galleries' spaces, beside one for every DiffComp variant under its name."""

NEGATIVE_GUIDANCE = 1.0
"""The guidance scale of a negative text where `retrieve.guidance_scale` is 0."""

PRIOR, CONTROL, DIFFCOMP = Path("models/prior"), Path("models/control"), Path("models/diffcomp")


@dataclass(frozen=True)
class QueryVectors:
    """What to search, and where."""

    space: str
    vectors: np.ndarray
    """[Q, d], or [Q, K, d] for K hypotheses a query; unit length."""


class ControlError(ValueError):
    """A control that cannot be used, or that the method does not have."""


@dataclass(frozen=True)
class Controls:
    """What a person may add to one query; None keeps the parameter of `retrieve`. Raises ControlError out of range."""

    negative: str = ""
    """What the answer should not be: guides Fusion-Diff's samples away, is subtracted on the sphere elsewhere."""
    negative_weight: float = 0.2
    """How far it is subtracted, see `subtract`: by a dual encoder, only what it says beyond the modification."""
    region: Image.Image | None = None
    """An image in mode L over the reference, 255 where that is to change; DiffComp only."""
    guidance_scale: float | None = None
    control_scale: float | None = None
    hypotheses: int | None = None

    def __post_init__(self) -> None:
        for name, high in (("negative_weight", 1.0), ("guidance_scale", 20.0), ("control_scale", 20.0)):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and 0.0 <= value <= high):
                raise ControlError(f"{name}: {value} is not between 0 and {high:g}")
        if self.hypotheses is not None and not 1 <= self.hypotheses <= 64:
            raise ControlError(f"hypotheses: {self.hypotheses} is not between 1 and 64")


@dataclass
class Asked:
    """One query's vectors, and what came of making them."""

    query: QueryVectors
    descriptions: list[str] = field(default_factory=list)
    """The target as Fusion-Diff described it, likeliest first."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Part -> time it took."""


class Clock:
    """Seconds by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


ALONE = nullcontext()
"""No lock: nobody else asks."""


class Family(Protocol):
    """Methods that share their models."""

    spaces: dict[str, dict[str, Any]]
    """Space -> what the identity of a gallery in it must say."""

    def vectors(self, queries: Sequence[Query], pictures: ImageSource) -> dict[str, QueryVectors]:
        """Method -> its query vectors."""

    def ask(
        self,
        method: str,
        query: Query,
        pictures: ImageSource,
        controls: Controls,
        alone: AbstractContextManager[Any] = ALONE,
    ) -> Asked:
        """One query of one method, under the person's controls. alone: a lock for what threads must not do at the same time."""


def open_space(folder: str | Path, family: Family, space: str, threads: int = 1) -> Index:
    """Load the index of one space. Raises ArtifactError when its gallery was embedded by another model."""
    index = Index.open(Path(folder) / space, threads=threads)
    found = index.manifest["gallery_identity"]
    for key, expected in family.spaces[space].items():
        if found.get(key) != expected:
            raise ArtifactError(
                f"{Path(folder) / space}: its gallery has {key} = {found.get(key)!r}, the queries {expected!r}"
            )
    return index


FUSION_DIFF_METHODS = ("fused_only", "stage1_only", "fusion_diff")


class FusionDiffQueries:
    """fused_only (A): z_r,delta itself; stage1_only (B): the prior; fusion_diff (C): the prior under control."""

    def __init__(self, params: Params, mllm: Mllm, text_encoder: TextEncoder, stage1: Sampler, full: Sampler):
        self.params, self.mllm, self.text_encoder, self.stage1, self.full = params, mllm, text_encoder, stage1, full
        self.spaces = {FUSED: mllm_identity(params.encoder)}
        self.descriptions: dict[str, list[str]] = {}
        """Query id -> the target descriptions inferred for it so far."""
        self._batchers: dict[Sampler, SamplingBatcher] = {}

    def share_batches(self) -> None:
        """From now on, threads that `ask` at the same time are sampled together.

        Nobody waits for company: whoever comes while a batch is being sampled makes up the next one.
        """
        self._batchers = {sampler: SamplingBatcher(sampler, wait_ms=0.0) for sampler in (self.stage1, self.full)}

    def close(self) -> None:
        """End what `share_batches` began."""
        for batcher in self._batchers.values():
            batcher.close()
        self._batchers = {}

    @classmethod
    def load(cls, params: Params, prior_folder: Path = PRIOR, control_folder: Path = CONTROL) -> FusionDiffQueries:
        """Raises ArtifactError when the prior learned another encoder's embeddings, or the adapter another prior."""
        where, sizes = device(params.runtime), params.retrieve
        prior, diffusion = load_prior(
            prior_folder, **mllm_identity(params.encoder), **text_encoder_identity(params.text_encoder)
        )
        adapter = load_control(control_folder, prior, prior_folder).to(where)
        prior.to(where)
        fast = sizes.fast and where == "cuda"
        if fast:
            prior.bfloat16(), adapter.bfloat16()
        stage1, full = (
            Sampler(prior, control, diffusion, SamplerSettings.from_params(sizes), fast, sizes.fp8)
            for control in (None, adapter)
        )
        mllm, text_encoder = (
            open_mllm(params.encoder, params.runtime.device),
            TextEncoder(params.text_encoder, params.runtime.device),
        )
        return cls(params, mllm, text_encoder, stage1, full)

    def vectors(self, queries: Sequence[Query], pictures: ImageSource) -> dict[str, QueryVectors]:
        fused = self.fuse(queries, pictures)
        described = self.describe(queries, pictures)
        self.descriptions |= {query.query_id: texts for query, texts in zip(queries, described, strict=True)}
        stage1, full = self.sample(self.stage1, queries, described), self.sample(self.full, queries, described, fused)
        return {
            "fused_only": QueryVectors(FUSED, fused),
            "stage1_only": QueryVectors(FUSED, stage1),
            "fusion_diff": QueryVectors(FUSED, full),
        }

    def fuse(self, queries: Sequence[Query], pictures: ImageSource) -> np.ndarray:
        """z_r,delta [Q, d]: f_M of the reference and the modification."""
        inputs = [MllmInput(query.text, pictures.image(query.reference_id)) for query in queries]
        return np.concatenate([self.mllm.embed(batch) for batch in self._batches(inputs, "z_r,delta")])

    def describe(self, queries: Sequence[Query], pictures: ImageSource) -> list[list[str]]:
        """The D likeliest target descriptions of every query, best first; the modification where f_M says nothing."""
        encoder, count = self.params.encoder, self.params.retrieve.descriptions
        inputs = [
            target_input(encoder, pictures.image(query.reference_id), query.text, query.shared_concept)
            for query in queries
        ]
        answers = [
            answer
            for batch in self._batches(inputs, "target descriptions")
            for answer in self.mllm.generate(batch, encoder.max_new_tokens, count)
        ]
        return [[text or query.text for text in texts] for query, texts in zip(queries, answers, strict=True)]

    def ask(
        self,
        method: str,
        query: Query,
        pictures: ImageSource,
        controls: Controls,
        alone: AbstractContextManager[Any] = ALONE,
    ) -> Asked:
        """A negative text brings guidance where the parameters have none. ControlError for a region, and for one with a guidance of 0."""
        if controls.region is not None:
            raise ControlError(f"region: {method} takes none, only DiffComp does")
        clock, described = Clock(), [[]]
        with clock.part("describe"), alone:
            fused = None if method == "stage1_only" else self.fuse([query], pictures)
            if method != "fused_only":
                described = self.describe([query], pictures)
        if method == "fused_only":
            if controls.negative:
                with alone:
                    fused = _subtract(fused, self.mllm.embed([MllmInput(controls.negative)]), controls)
            return Asked(QueryVectors(FUSED, fused), seconds=clock.seconds)
        guidance = controls.guidance_scale
        if controls.negative and guidance is None and self.params.retrieve.guidance_scale == 0.0:
            guidance = NEGATIVE_GUIDANCE
        with alone:
            sampler = (self.stage1 if fused is None else self.full).scaled(guidance, controls.control_scale)
        if controls.negative and sampler.settings.guidance_scale == 0.0:
            raise ControlError(f"negative: {method} needs a guidance scale above 0 to be led away from it")
        with clock.part("sample"):
            if sampler in self._batchers and not controls.negative:
                vectors = self._sample_in_company(sampler, query, described[0], fused, controls.hypotheses, alone)
            else:
                with alone:
                    vectors = self.sample(sampler, [query], described, fused, controls.hypotheses, controls.negative)
        return Asked(QueryVectors(FUSED, vectors), described[0], clock.seconds)

    def sample(
        self,
        sampler: Sampler,
        queries: Sequence[Query],
        described: list[list[str]],
        fused: np.ndarray | None = None,
        hypotheses: int | None = None,
        negative: str = "",
    ) -> np.ndarray:
        """K sampled targets a query, [Q, K, d]: K / D of them for each of its D descriptions.

        hypotheses: K, when not that of the parameters; at least D are drawn. negative: see `Sampler.sample`.
        """
        retrieve, ids = self.params.retrieve, [query.query_id for query in queries]
        each = self._hypotheses_each(hypotheses)
        control = None if fused is None else torch.from_numpy(fused)  # [Q, d]
        against = TextConditions.from_list(self.text_encoder.encode([negative])) if negative else None
        parts = []
        for number, texts in enumerate(zip(*described, strict=True)):
            text = TextConditions.from_list(self.text_encoder.encode(list(texts)), ids)
            drawn = [
                sampler.sample(
                    [ids[row] for row in rows],
                    *text.batch(rows),
                    None if control is None else control[rows],
                    hypotheses=each,
                    seed=self.params.seed + number,
                    negative=against and against.batch(torch.zeros_like(rows)),
                ).cpu()
                for rows in tqdm(
                    torch.arange(len(ids)).split(retrieve.batch_size), desc="sampling", mininterval=5.0, delay=1.0
                )
            ]
            parts.append(torch.cat(drawn))  # [Q, K / D, d]
        return torch.cat(parts, dim=1).numpy()

    def _sample_in_company(
        self,
        sampler: Sampler,
        query: Query,
        texts: list[str],
        fused: np.ndarray | None,
        hypotheses: int | None,
        alone: AbstractContextManager[Any],
    ) -> np.ndarray:
        """As `sample` for one query, in the batches of all who ask meanwhile: [1, K, d]."""
        control = None if fused is None else torch.from_numpy(fused)[0]  # [d]
        with alone:
            states = [self.text_encoder.encode([text])[0] for text in texts]
        promises = [
            self._batchers[sampler].submit(
                query.query_id, one, control, self._hypotheses_each(hypotheses), self.params.seed + number
            )
            for number, one in enumerate(states)
        ]
        return torch.cat([promise.result() for promise in promises])[None].numpy()

    def _hypotheses_each(self, hypotheses: int | None) -> int:
        """K / D, at least 1."""
        return max(1, (hypotheses or self.params.retrieve.hypotheses) // self.params.retrieve.descriptions)

    def _batches(self, inputs: list[MllmInput], title: str) -> tqdm:
        return tqdm(list(batches(inputs, self.params.encoder.batch_size)), desc=title, mininterval=5.0, delay=1.0)


class DualEncoderQueries:
    """The training-free rows over the untouched backbone, and every trained DiffComp."""

    def __init__(
        self, params: Params, backbone: DualEncoder, variants: dict[str, DiffComp], spaces: dict[str, dict[str, Any]]
    ):
        self.params, self.backbone, self.variants, self.spaces = params, backbone, variants, spaces

    @classmethod
    def load(cls, params: Params, folder: Path = DIFFCOMP, only: Collection[str] | None = None) -> DualEncoderQueries:
        """The variants named in `only` (None: all). Raises ArtifactError when one is missing or does not fit its backbone."""
        where, base = device(params.runtime), params.diffcomp
        variants = {
            name: load_diffcomp(folder / name, load_dual_encoder(variant.backbone, variant.pretrained)).to(where)
            for name, variant in params.variants().items()
            if only is None or name in only
        }
        spaces = {CLIP: backbone_identity(base.backbone, base.pretrained)} | {
            name: variant_identity(folder / name) for name in variants
        }
        return cls(params, load_dual_encoder(base.backbone, base.pretrained).eval().to(where), variants, spaces)

    def ask(
        self,
        method: str,
        query: Query,
        pictures: ImageSource,
        controls: Controls,
        alone: AbstractContextManager[Any] = ALONE,
    ) -> Asked:
        """Raises ControlError for a region where the method is no DiffComp."""
        clock, model = Clock(), self.variants.get(method)
        if controls.region is not None and model is None:
            raise ControlError(f"region: {method} takes none, only DiffComp does")
        encoder, space = (model.encoder, method) if model else (self.backbone, CLIP)
        with clock.part("describe"), alone, torch.inference_mode():
            if model:
                vector = self._compose(model, [query], pictures, controls.region)
            else:
                image, text = (
                    self._images(encoder, [query], pictures),
                    encoder.encode_text(self._tokens(encoder, [query])),
                )
                weight = {"slerp": self.params.retrieve.slerp, "image_text": self.params.retrieve.image_text}.get(
                    method
                )
                compose = BASELINES[method]
                pair = (image.float().cpu().numpy(), text.float().cpu().numpy())
                vector = torch.from_numpy(compose(*pair) if weight is None else compose(*pair, weight))
            composed = vector.float().cpu().numpy()
            if controls.negative:
                negative = encoder.encode_text(encoder.tokenize([controls.negative]).to(encoder.mean.device))
                beyond = _apart(negative, encoder.encode_text(self._tokens(encoder, [query])))
                composed = _subtract(composed, beyond.float().cpu().numpy(), controls)
        return Asked(QueryVectors(space, composed), seconds=clock.seconds)

    def kept(self, method: str, query: Query, pictures: ImageSource, region: Image.Image | None = None) -> np.ndarray:
        """1 - alpha_j over the reference's middle square, [h, w]: how much of it a DiffComp keeps where."""
        model = self.variants[method]
        pixels, painted = self._reference(model.encoder, [query], pictures, region)
        return model.alpha_map(pixels, self._tokens(model.encoder, [query]), painted)[0].float().cpu().numpy()

    def vectors(self, queries: Sequence[Query], pictures: ImageSource) -> dict[str, QueryVectors]:
        image = self._encode(lambda batch: self._images(self.backbone, batch, pictures), queries, CLIP)
        text = self._encode(lambda batch: self.backbone.encode_text(self._tokens(self.backbone, batch)), queries, CLIP)
        weights = {"slerp": self.params.retrieve.slerp, "image_text": self.params.retrieve.image_text}
        rows = {
            name: QueryVectors(CLIP, compose(image, text, weights[name]) if name in weights else compose(image, text))
            for name, compose in BASELINES.items()
        }
        for name, model in self.variants.items():
            rows[name] = QueryVectors(
                name, self._encode(lambda batch, model=model: self._compose(model, batch, pictures), queries, name)
            )
        return rows

    def _encode(self, encode: Any, queries: Sequence[Query], title: str) -> np.ndarray:
        return encode_in_batches(encode, queries, self.params.retrieve.batch_size, title)

    def _images(self, encoder: DualEncoder, batch: Sequence[Query], pictures: ImageSource) -> Tensor:
        return encode_images(encoder, pictures, [query.reference_id for query in batch])

    def _tokens(self, encoder: DualEncoder, batch: Sequence[Query]) -> Tensor:
        return encoder.tokenize([query.text for query in batch]).to(encoder.mean.device)

    def _compose(
        self, model: DiffComp, batch: Sequence[Query], pictures: ImageSource, region: Image.Image | None = None
    ) -> Tensor:
        pixels, painted = self._reference(model.encoder, batch, pictures, region)
        return model.compose(pixels, self._tokens(model.encoder, batch), painted)

    def _reference(
        self, encoder: DualEncoder, batch: Sequence[Query], pictures: ImageSource, region: Image.Image | None
    ) -> tuple[Tensor, Tensor | None]:
        """Normalised references [B, 3, S, S], and the region as they are cut, [B, S, S] in [0, 1]."""
        size = encoder.image_size
        pixels = encoder.normalise(pictures.pixels([query.reference_id for query in batch], size))
        if region is None:
            return pixels, None
        painted = torch.from_numpy(np.array(centre_square(region, size))).float() / 255.0  # [S, S]
        return pixels, painted.expand(len(batch), -1, -1).to(pixels.device)


def _apart(negative: Tensor, wanted: Tensor) -> Tensor:
    """What a negative text says beyond the modification, both [1, d]: a direction [1, d], zero where they say the same.

    What all texts have in common, by which they lie apart from images, drops out: turned away from that too, a query
    would only come nearer to every image.
    """
    return F.normalize(negative - wanted, dim=-1, eps=1e-6)


def _subtract(vectors: np.ndarray, negative: np.ndarray, controls: Controls) -> np.ndarray:
    return subtract(torch.from_numpy(vectors), torch.from_numpy(negative), controls.negative_weight).numpy()

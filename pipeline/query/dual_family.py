"""The dual encoders answer queries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.diffcomp import DiffComp
from pipeline.encoders.batching import encode_in_batches
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.encoders.image_source import ImageSource, centre_square
from pipeline.query.clock import Clock
from pipeline.query.dual import methods
from pipeline.query.interface import NO_CONTROLS, Controls, Descriptions, Family, Method, QueryVectors
from pipeline.query.models import Models
from pipeline.query.spaces import BackboneSpace, ModelSpace, VariantSpace
from pipeline.query.turning import turned
from pipeline.retrieval.baselines import image_only, image_text, slerp, text_only
from pipeline.retrieval.queries import Query
from pipeline.retrieval.spaces import CLIP

COMPOSITIONS: dict[str, Callable[..., np.ndarray]] = {
    "image_only": image_only,
    "text_only": text_only,
    "image_text": image_text,
    "slerp": slerp,
}
"""Training-free method -> how it composes image and text vectors. `retrieve` may hold the text's weight by its name."""


def spaces(models: Models) -> dict[str, ModelSpace]:
    """The backbone's space, and one for every variant."""
    variants = {name: VariantSpace(name, models) for name in models.params.diffcomp_variants}
    return {CLIP: BackboneSpace(models), **variants}


def load(models: Models, only: Collection[str] | None = None) -> DualEncoders:
    """Load the variants.

    Args:
        models: Opens them and the backbone.
        only: The methods that will be asked for; None: all.

    Returns:
        The family of these methods.

    Raises:
        ArtifactError: A variant is missing or does not fit its backbone.
    """
    chosen = [method for method in methods(models.params) if only is None or method.name in only]
    variants = {method.name: models.diffcomp(method.name) for method in chosen if method.name not in COMPOSITIONS}
    return DualEncoders(models, chosen, variants)


class DualEncoders(Family):
    """The training-free methods over the untouched backbone, and DiffComp variants over their own."""

    def __init__(self, models: Models, chosen: Sequence[Method], variants: Mapping[str, DiffComp]):
        self.params, self.backbone, self.variants = models.params, models.backbone, variants
        self.methods = {method.name: method for method in chosen}
        self.spaces = spaces(models)

    def answer(
        self,
        queries: Sequence[Query],
        images: ImageSource,
        controls: Controls = NO_CONTROLS,
        methods: Collection[str] | None = None,
        descriptions: Descriptions | None = None,
    ) -> dict[str, QueryVectors]:
        """See `Family.answer`. Descriptions are not used.

        Raises:
            ControlError: There is a region, and a method is no DiffComp variant.
        """
        names = self.chosen(methods, controls)
        shared, found = Clock(), {}
        with shared.part("describe"):
            if any(name in COMPOSITIONS for name in names):
                image = self._references(queries, images)
                text = self._encode(lambda batch: self._text(self.backbone, batch), queries, CLIP)
        for name in names:
            clock, model = Clock(), self.variants.get(name)
            with clock.part("describe"):
                if model is None:
                    encoder, vectors = self.backbone, self._composed(name, image, text)
                else:
                    encoder, vectors = model.encoder, self._differentiated(model, queries, images, controls.region)
                if controls.negative:
                    vectors = turned(encoder, vectors, queries, controls)
            if model is None:
                clock.seconds["describe"] += shared.seconds["describe"]
            found[name] = QueryVectors(self.methods[name].space, vectors, seconds=clock.seconds)
        return found

    def explain(
        self, method: str, query: Query, images: ImageSource, controls: Controls = NO_CONTROLS
    ) -> np.ndarray | None:
        """1 - lambda_j over the reference's central square, [h, w]; None for a training-free method."""
        model = self.variants.get(method)
        if model is None:
            return None
        pixels, region = self._reference(model.encoder, [query], images, controls.region)
        return model.kept_map(pixels, self._tokens(model.encoder, [query]), region)[0].float().cpu().numpy()

    def _composed(self, name: str, image: np.ndarray, text: np.ndarray) -> np.ndarray:
        """A training-free composition of image and text vectors, [Q, d] each."""
        weight = getattr(self.params.retrieve, name, None)
        return COMPOSITIONS[name](image, text) if weight is None else COMPOSITIONS[name](image, text, weight)

    def _differentiated(
        self, model: DiffComp, queries: Sequence[Query], images: ImageSource, region: Image.Image | None
    ) -> np.ndarray:
        """f_comp of all queries, [Q, d]."""

        def compose(batch: Sequence[Query]) -> Tensor:
            pixels, painted = self._reference(model.encoder, batch, images, region)
            return model.compose(pixels, self._tokens(model.encoder, batch), painted)

        return self._encode(compose, queries, "DiffComp")

    def _encode(self, encode: Callable[[Sequence[Query]], Tensor], queries: Sequence[Query], title: str) -> np.ndarray:
        """`encode` over the queries, batch by batch: float32 [Q, d]."""
        return encode_in_batches(encode, queries, self.params.retrieve.batch_size, title)

    def _references(self, queries: Sequence[Query], images: ImageSource) -> np.ndarray:
        """f_I of the references, [Q, d]. Only those are encoded whose vectors are not stored."""
        stored = images.stored(CLIP)
        missing = [query for query in queries if query.reference_id not in stored]
        encoded = self._encode(lambda batch: self._image(batch, images), missing, CLIP) if missing else np.empty(0)
        if not stored:
            return encoded
        fresh = iter(encoded)
        return np.stack([stored[one.reference_id] if one.reference_id in stored else next(fresh) for one in queries])

    def _image(self, batch: Sequence[Query], images: ImageSource) -> Tensor:
        """f_I of the references, [B, d]."""
        pixels = images.pixels([query.reference_id for query in batch], self.backbone.image_size, self.backbone.fit)
        return self.backbone.encode_image(self.backbone.normalise(pixels))

    def _text(self, encoder: ImageTextEncoder, batch: Sequence[Query]) -> Tensor:
        """f_T of the modifications, [B, d]."""
        return encoder.encode_text(self._tokens(encoder, batch))

    def _tokens(self, encoder: ImageTextEncoder, batch: Sequence[Query]) -> Tensor:
        """The modifications as token ids [B, C]."""
        return encoder.tokenize([query.text for query in batch]).to(encoder.mean.device)

    def _reference(
        self, encoder: ImageTextEncoder, batch: Sequence[Query], images: ImageSource, region: Image.Image | None
    ) -> tuple[Tensor, Tensor | None]:
        """Normalised references [B, 3, S, S], and the region cut as they are, [B, S, S] in [0, 1]."""
        size = encoder.image_size
        pixels = encoder.normalise(images.pixels([query.reference_id for query in batch], size))
        if region is None:
            return pixels, None
        painted = torch.from_numpy(np.array(centre_square(region, size))).float() / 255.0  # [S, S]
        return pixels, painted.expand(len(batch), -1, -1).to(pixels.device)

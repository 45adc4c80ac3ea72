"""Role-aware rows answer queries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.encoders.batching import encode_in_batches
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.encoders.image_source import ImageSource
from pipeline.query import dual_family
from pipeline.query.dual_family import DualEncoders
from pipeline.query.interface import NO_CONTROLS, Controls, Descriptions, Family, Method, QueryVectors
from pipeline.query.models import Models
from pipeline.query.roles import bases, methods
from pipeline.query.spaces import ModelSpace
from pipeline.retrieval.queries import Query
from pipeline.text.roles import RoleParser

NEUTRAL = "this"
"""A text that says nothing of an image. What all texts have in common drops out of a difference to it."""


def spaces(models: Models) -> dict[str, ModelSpace]:
    """The spaces of the rows that are moved."""
    known, wanted = dual_family.spaces(models), {method.space for method in methods(models.params)}
    return {name: space for name, space in known.items() if name in wanted}


def load(models: Models, only: Collection[str] | None = None) -> RoleAware:
    """Load what the rows need that will be asked for; None: all that are configured.

    Raises:
        ArtifactError: A DiffComp variant is missing or does not fit its backbone.
    """
    chosen = [method for method in methods(models.params) if only is None or method.name in only]
    base = bases(models.params)
    return RoleAware(models, chosen, dual_family.load(models, [base[method.name].name for method in chosen]))


class RoleAware(Family):
    """The methods in `roles.methods`, each moved by its query's roles.

    q' = normalize(q + w (t(changed) + t(kept) - t(excluded))), t(x) being the unit vector of f_T(x) - f_T(NEUTRAL), and
    zero for a role without words.
    """

    def __init__(self, models: Models, chosen: Sequence[Method], encoders: DualEncoders):
        self.params, self._encoders = models.params, encoders
        self._bases = {name: base.name for name, base in bases(models.params).items()}
        self.methods = {method.name: method for method in chosen}
        self.spaces = spaces(models)

    @cached_property
    def _parser(self) -> RoleParser:
        return RoleParser(self.params.captions.spacy_model)

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
        base = self._encoders.answer(queries, images, controls, [self._bases[name] for name in names])
        roles = self._parser.roles([query.text for query in queries])
        words = {role: [getattr(one, role) for one in roles] for role in ("changed", "kept", "excluded")}
        found: dict[str, QueryVectors] = {}
        for name in names:
            answer, model = base[self._bases[name]], self._encoders.variants.get(self._bases[name])
            shift = self._shift(model.encoder if model else self._encoders.backbone, words)
            moved = answer.vectors + self.params.roles.weight * shift
            moved /= np.linalg.norm(moved, axis=1, keepdims=True)
            found[name] = QueryVectors(answer.space, moved, seconds=answer.seconds)
        return found

    def explain(
        self, method: str, query: Query, images: ImageSource, controls: Controls = NO_CONTROLS
    ) -> np.ndarray | None:
        """As the method that is moved."""
        return self._encoders.explain(self._bases[method], query, images, controls)

    def _shift(self, encoder: ImageTextEncoder, words: Mapping[str, Sequence[str]]) -> np.ndarray:
        """t(changed) + t(kept) - t(excluded) of Q queries, [Q, d]."""

        def directions(texts: Sequence[str]) -> Tensor:
            tokens = encoder.tokenize([NEUTRAL, *(text or NEUTRAL for text in texts)]).to(encoder.mean.device)
            encoded = encoder.encode_text(tokens)
            there = torch.tensor([bool(text) for text in texts], device=encoded.device).unsqueeze(1)
            return F.normalize(encoded[1:] - encoded[:1], dim=-1) * there

        size = self.params.retrieve.batch_size
        parts = {role: encode_in_batches(directions, texts, size, "roles") for role, texts in words.items()}
        return parts["changed"] + parts["kept"] - parts["excluded"]

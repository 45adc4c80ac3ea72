"""A family as a newcomer would add it: the mean colour of the reference, in a space of mean colours."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from pipeline.config import Params
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.query.interface import NO_CONTROLS, Family, Method, QueryVectors
from pipeline.query.models import Models
from pipeline.query.spaces import ModelSpace

NAME = "toy"
METHODS = (Method("mean_colour", "Mean colour", "colours", NAME, group="Toys", note="the reference's mean colour"),)


class Colours:
    """Embeds an image as its mean colour."""

    dim = 3

    def embed(self, inputs: Sequence[MllmInput]) -> np.ndarray:
        colours = np.stack([np.asarray(one.image).reshape(-1, 3).mean(axis=0) for one in inputs])
        return (colours / np.linalg.norm(colours, axis=1, keepdims=True)).astype(np.float32)


class ColourSpace(ModelSpace):
    identity = {"colours": "mean"}
    embedder = Colours()


def methods(params: Params) -> tuple[Method, ...]:
    return METHODS


def spaces(models: Models) -> dict[str, ModelSpace]:
    return {"colours": ColourSpace("colours", models)}


def load(models: Models, only: Collection[str] | None = None) -> Family:
    return MeanColour(models)


class MeanColour(Family):
    def __init__(self, models: Models):
        self.methods, self.spaces = {METHODS[0].name: METHODS[0]}, spaces(models)

    def answer(self, queries, images, controls=NO_CONTROLS, methods=None, descriptions=None):
        references = [images.image(query.reference_id) for query in queries]
        return {"mean_colour": QueryVectors("colours", self.spaces["colours"].embed_images(references))}

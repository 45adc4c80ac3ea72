"""What goes over the wire. Nothing here loads torch, so that a client stays small."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MAX_SEARCHES = 32
"""Searches in a batch."""
MAX_BODY = 32 * 1024 * 1024
"""Bytes of a request, uploads included."""
MAX_ENCODED = MAX_BODY * 3 // 4 * 4 // 3
"""Characters of an image in base64."""

Id = Annotated[str, Field(min_length=1, max_length=1_024)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=10_000)] | int | float | bool],
    Field(max_length=100),
]
"""Field -> value, of one image."""
Share = Annotated[float, Field(ge=0, le=1)]


class Model(BaseModel):
    """What goes either way. A client reads answers of later servers, whose new fields it does not know."""

    model_config = ConfigDict(allow_inf_nan=False, frozen=True)


class Sent(Model):
    """What a caller sends: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class Reference(Sent):
    """A reference image: either an image of the gallery by its id, or an image file in base64."""

    id: Id | None = None
    image: Annotated[str | None, Field(max_length=MAX_ENCODED, description="An image file in base64.")] = None
    weight: Annotated[
        float,
        Field(ge=-10, le=10, description="Below 0: the query moves away from this image. The first plus weight is 1."),
    ] = 1.0


class Search(Sent):
    """One search."""

    references: Annotated[list[Reference], Field(max_length=8)] = []
    text: Annotated[str, Field(max_length=1_000, description="What should be different.")] = ""
    method: Annotated[str | None, Field(max_length=100, description="Default: that of GET /v1/info.")] = None
    top: Annotated[int, Field(ge=1, le=200, description="The number of results.")] = 10
    rerank: Annotated[
        int, Field(ge=0, le=200, description="How many of the first answers a multimodal LLM verifies and orders anew.")
    ] = 0
    negative: Annotated[str, Field(max_length=1_000, description="What the results should not show.")] = ""
    negative_weight: Share = 0.2
    concept: Annotated[str, Field(max_length=1_000, description="What reference and target have in common.")] = ""
    region: Annotated[
        tuple[Share, Share, Share, Share] | None,
        Field(description="What may change: x0, y0, x1, y1 as fractions of width and height."),
    ] = None
    mask: Annotated[
        str | None, Field(max_length=MAX_ENCODED, description="In its place: an image in base64, bright where it may.")
    ] = None
    guidance_scale: Annotated[float | None, Field(ge=0, le=20)] = None
    control_scale: Annotated[float | None, Field(ge=0, le=20)] = None
    hypotheses: Annotated[int | None, Field(ge=1, le=64)] = None
    liked: Annotated[list[Id], Field(max_length=100, description="Ids: the query moves towards them.")] = []
    disliked: Annotated[
        list[Id], Field(max_length=100, description="Ids: it moves away, and they are no results.")
    ] = []
    filter: Annotated[
        str, Field(max_length=2_000, description='On metadata, such as `year >= 2020 and tag == "a"`.')
    ] = ""
    liked_weight: Annotated[float, Field(ge=0, le=10)] = 0.75
    disliked_weight: Annotated[float, Field(ge=0, le=10)] = 0.25


class Searches(Sent):
    """Several searches in one request. Those with the same method and controls are answered together."""

    searches: Annotated[list[Search], Field(min_length=1, max_length=MAX_SEARCHES)]


class Image(Model):
    """An image of the gallery."""

    id: str
    name: str
    """For people; empty where there is none beside the id."""
    link: str
    """Path of the image on this server."""


class ListedImage(Image):
    """An image with its metadata."""

    fields: dict[str, str | bool | int | float]
    """What filters may name; nothing in a benchmark."""


class Hit(Image):
    """An image that answers a search."""

    rank: int
    score: float


class Answer(Model):
    """What a search found, the best first."""

    method: str
    space: str
    hits: list[Hit]
    descriptions: list[str]
    """The target as the method described it on the way."""
    seconds: dict[str, float]
    """Part of the work -> the time that it took, for all searches that were answered together."""


class Answers(Model):
    """The answers to `Searches`, in their order."""

    answers: list[Answer]


class Caption(Model):
    """A training caption and its cosine to what was searched."""

    text: str
    cosine: float


class Explanation(Model):
    """Why a method answers as it does, as far as it says so."""

    method: str
    descriptions: list[str]
    captions: list[Caption]
    """The nearest training captions."""
    decoded: list[str]
    """What was searched, as PNGs in base64: the first hypotheses, where a decoder is trained."""
    kept: list[list[float]] | None
    """Rows of the share in [0, 1] that is kept of the reference's central square, where a method says so."""
    heat_map: str | None
    """The same as a PNG in base64, over the reference."""


class Description(Model):
    """The target as the multimodal LLM describes it, the likeliest first."""

    descriptions: list[str]


class MethodInfo(Model):
    """A method that this server can search with."""

    name: str
    label: str
    note: str
    space: str
    controls: list[str]


class Info(Model):
    """What this server searches, and how."""

    version: str
    gallery: str
    images: int
    methods: list[MethodInfo]
    default_method: str
    fields: dict[str, str]
    """The fields that a filter may name, and their kinds: text, number, truth."""
    warning: str
    """What to know about these models; empty where there is nothing to say."""


class Images(Model):
    """A page of the gallery's images."""

    total: int
    images: list[ListedImage]


class Added(Model):
    """What became of added images. It is on the disk, and searches find it."""

    added: int
    replaced: int
    images: list[Image]


class Removed(Model):
    """The image is no result any more."""

    id: str


class Health(Model):
    """The server answers."""

    status: str = "ok"


class Problem(Model):
    """What is wrong."""

    code: str
    """For programs, such as `unknown_id`."""
    message: str
    """For people, one sentence."""


class ErrorAnswer(Model):
    """The body of every answer with a status of 400 or above."""

    error: Problem


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documented errors of a route."""
    return {status: {"model": ErrorAnswer} for status in statuses}

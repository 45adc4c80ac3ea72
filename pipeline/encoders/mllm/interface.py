"""f_M behind one interface: fused embeddings and generated text from images and texts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from PIL import Image
from torch import Tensor

Task = Literal["embed", "generate"]
"""What an input is prepared for; the name of the call that takes it."""


@dataclass(frozen=True)
class MllmInput:
    """What f_M sees: an image, a text, or both; or two images and what is asked of them."""

    text: str = ""
    image: Image.Image | None = None
    """RGB."""
    is_query: bool = False
    """Whether it searches, a reference with its modification. Embedders may have one instruction for those and one for
    what is searched."""
    candidate: Image.Image | None = None
    """RGB: what is verified as an answer to `image` and `text`."""

    def at_most(self, max_side: int) -> MllmInput:
        """The input with its images reduced until neither side is longer, in pixels; 0: as it is.

        A job reduces images as it decodes them. This makes queries and folders of people's own of the same size.
        """
        if not max_side or all(max(image.size) <= max_side for image in self.images):
            return self
        return replace(self, image=_reduced(self.image, max_side), candidate=_reduced(self.candidate, max_side))

    @property
    def images(self) -> list[Image.Image]:
        """The images that are there, in the order in which f_M sees them."""
        return [image for image in (self.image, self.candidate) if image is not None]


MakeInput = Callable[[], MllmInput]
"""Makes an input, as a picklable call of a function with a name."""
TOGETHER = 8
"""Inputs that are prepared in one call. A call to another process costs the calling one time, whatever it holds."""
Prepare = Callable[[Sequence[MllmInput | MakeInput]], list[MllmInput | ValueError]]
"""Inputs -> the same as a model takes them, or why it does not."""


def _reduced(image: Image.Image | None, max_side: int) -> Image.Image | None:
    """An image with neither side longer than `max_side`."""
    if image is None or max(image.size) <= max_side:
        return image
    smaller = image.copy()
    smaller.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    return smaller


class Embedder(Protocol):
    """What turns images and texts into vectors of one space."""

    @property
    def dim(self) -> int:
        """d: the width of the vectors."""

    def embed(self, inputs: Sequence[MllmInput]) -> np.ndarray:
        """The vectors of N inputs, in their order.

        Returns:
            float32 [N, dim], L2-normalised.
        """


class Generator(Protocol):
    """What writes text about images."""

    def generate(self, inputs: Sequence[MllmInput], max_new_tokens: int, sequences: int = 1) -> list[list[str]]:
        """The likeliest continuations of N inputs.

        Args:
            inputs: Images with prompts.
            max_new_tokens: Bound on an answer's tokens.
            sequences: K, the answers for one input: beam search, or greedy decoding for one.

        Returns:
            K texts for every input, in the order of the inputs, the likeliest first.
        """


class Verifier(Protocol):
    """What answers with one of some given tokens."""

    def token_probabilities(self, inputs: Sequence[MllmInput], tokens: Sequence[str]) -> np.ndarray:
        """The probabilities of the next token, among given ones.

        Args:
            inputs: N inputs.
            tokens: T texts, each one token of the model.

        Returns:
            float32 [N, T]. Every row sums to 1: all other tokens are left out.

        Raises:
            ParameterError: A text is not one token.
        """


class TextStates(Protocol):
    """What shows its text branch."""

    def text_states(self, texts: Sequence[str]) -> list[Tensor]:
        """The final states of N texts' tokens in the embedding template, from the text's first token on.

        Returns:
            float32 [T_i, D] on the CPU for each; the last one, normalised, is the text's embedding.
        """


class Mllm(Embedder, Generator, Verifier, TextStates, Protocol):
    """A multimodal LLM. `embed` gives z(x), the last token's final hidden state, L2-normalised.

    A backend may also have `prepare(inputs, task)`. It does ahead of `embed` or `generate` what can be done for each
    input alone. Threads call it, best with `TOGETHER` inputs. An input may be a function that makes it, which may be
    called in another process. In the list that it returns, a ValueError stands for an input that is not taken.
    It may have `start(task)`, which opens the model for that call.
    """

    def close(self) -> None:
        """Give the model's memory back. It is opened again when it is next asked."""


def preparer(mllm: Embedder | Generator, task: Task) -> Prepare:
    """`mllm.prepare` for one task; `made_each` for a backend that has no such method."""
    prepare = getattr(mllm, "prepare", None)
    return functools.partial(prepare, task=task) if prepare else made_each


def starter(mllm: Embedder | Generator, task: Task) -> Callable[[], None]:
    """`mllm.start` for one task; nothing for a backend that has no such method."""
    start = getattr(mllm, "start", None)
    return functools.partial(start, task) if start else _nothing


def _nothing() -> None:
    """Such a model is open."""


def made(one: MllmInput | MakeInput) -> MllmInput:
    """An input, or what a function makes."""
    return one if isinstance(one, MllmInput) else one()


def made_each(inputs: Sequence[MllmInput | MakeInput]) -> list[MllmInput | ValueError]:
    """`made` for each of them, or the ValueError that one raises."""
    return [_made_or_refused(one) for one in inputs]


def _made_or_refused(one: MllmInput | MakeInput) -> MllmInput | ValueError:
    try:
        return made(one)
    except ValueError as error:
        return error


def leading_dimensions(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Cut vectors to their leading dimensions and normalise them again.

    Args:
        vectors: float32 [N, D].
        dim: How many to keep; 0: all, unchanged.

    Returns:
        float32 [N, dim or D].

    Raises:
        ValueError: `dim` exceeds D.
    """
    if not dim:
        return vectors
    if dim > vectors.shape[1]:
        raise ValueError(f"embedder.dim {dim} exceeds the model's {vectors.shape[1]} dimensions")
    kept = vectors[:, :dim]
    return kept / np.linalg.norm(kept, axis=1, keepdims=True)
